# Sourced by the scripts beside it: running long commands with a progress display, and counting steps.
# shellcheck shell=bash
# What the script that sources this file sets or reads.
# shellcheck disable=SC2034

# At a terminal one line is rewritten every second; in a log file a line is added every 20 seconds.
if [[ -t 1 && -z ${CI:-} ]]; then steps_terminal=yes; else steps_terminal=no; fi
steps_child=

steps_stop_child() {
  # The command runs in a session of its own, so that all it started goes down with it.
  if [[ -n $steps_child ]]; then kill -- "-$steps_child" 2>/dev/null || true; fi
}
trap steps_stop_child EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

steps_latest_line() {
  tail -c 600 "$1" 2>/dev/null | tr '\r' '\n' | sed $'s/\033\\[[0-9;]*[A-Za-z]//g' |
    grep -av '^[[:space:]]*$' | tail -n 1 | cut -c 1-90 || true
}

# run_logged LOG TEXT COMMAND...: runs the command with its output in LOG, and shows how long it has been
# running and its latest line. Returns the command's status.
run_logged() {
  local log=$1 text=$2 start=$SECONDS shown=0 status=0
  shift 2
  mkdir -p "$(dirname "$log")"
  setsid "$@" >"$log" 2>&1 </dev/null &
  steps_child=$!
  while kill -0 "$steps_child" 2>/dev/null; do
    if [[ $steps_terminal == yes ]]; then
      printf '\r\033[K  %4d s  %s  %s' $((SECONDS - start)) "$text" "$(steps_latest_line "$log")"
    elif ((SECONDS - start - shown >= 20)); then
      shown=$((SECONDS - start))
      printf '  %4d s  %s  %s\n' "$shown" "$text" "$(steps_latest_line "$log")"
    fi
    # A short command should not cost a second.
    if ((SECONDS - start < 2)); then sleep 0.1; else sleep 1; fi
  done
  wait "$steps_child" || status=$?
  steps_child=
  if [[ $steps_terminal == yes ]]; then printf '\r\033[K'; fi
  return "$status"
}

# ---------------------------------------------------------------- counted steps

steps_names=() steps_results=() steps_seconds=()
steps_logs=

# The lines of a failed step's log that say why: of `swift build`, `swift test` and the sanitizers.
step_failure='^[^ |]*: (error|warning): |^error: |✘|recorded an issue|Fatal error'
step_failure+='|ERROR: AddressSanitizer|WARNING: ThreadSanitizer'

record_step() {
  steps_names+=("$1")
  steps_results+=("$2")
  steps_seconds+=("$3")
}

# step NAME COMMAND...: runs and counts one step. Its output goes to a log, whose end is shown if it fails.
# After success the lines that match $step_closing, if set, are shown as they are.
step() {
  local name=$1 start=$SECONDS log status=0
  shift
  log=$steps_logs/${name//[^A-Za-z0-9]/-}.log
  printf '== %s\n' "$name"
  run_logged "$log" "$name" "$@" || status=$?
  if [[ -n ${step_closing:-} ]]; then grep -E "$step_closing" "$log" | tail -n 20 || true; fi
  if ((status == 0)); then
    record_step "$name" ok $((SECONDS - start))
    printf '   ok (%d s)\n' $((SECONDS - start))
  else
    record_step "$name" FAILED $((SECONDS - start))
    if [[ -n ${step_failure:-} ]]; then grep -E "$step_failure" "$log" | awk '!seen[$0]++' | head -n 60 || true; fi
    printf '   the last lines of %s:\n' "$log"
    tail -n "${CI:+1}60" "$log"
    printf '   FAILED with status %d (%d s)\n' "$status" $((SECONDS - start))
  fi
  return "$status"
}

# skip_step NAME REASON
skip_step() {
  record_step "$1" "skipped: $2" 0
  printf '== %s\n   skipped: %s\n' "$1" "$2"
}

# find_traces ROOT: exports KVSTORE_TRACES, by default ROOT/../shared/traces if it is there.
find_traces() {
  if [[ -z ${KVSTORE_TRACES:-} && -d $1/../shared/traces ]]; then
    KVSTORE_TRACES=$(cd "$1/../shared/traces" && pwd)
  fi
  if [[ -n ${KVSTORE_TRACES:-} ]]; then export KVSTORE_TRACES; fi
}

# Prints the table of steps and the closing line; its status is that of the script.
finish_steps() {
  local passed=0 failed=0 skipped=0 i
  printf '\n'
  for i in "${!steps_names[@]}"; do
    case ${steps_results[i]} in
      ok) passed=$((passed + 1)) ;;
      FAILED) failed=$((failed + 1)) ;;
      *) skipped=$((skipped + 1)) ;;
    esac
    printf '  %-34s %5d s  %s\n' "${steps_names[i]}" "${steps_seconds[i]}" "${steps_results[i]}"
  done
  printf '\n'
  if ((skipped > 0)); then
    printf '%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
  else
    printf '%d passed, %d failed\n' "$passed" "$failed"
  fi
  ((failed == 0 && passed > 0))
}
