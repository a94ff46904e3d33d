/* What would tie the programs to a newer libc than they need. */
#include <math.h>

/* The Swift runtime and numerics refer to hypot and hypotf and hardly call them; as of glibc 2.35 these have
 * versions of their own. Scaled, so that no square overflows. */
__attribute__((visibility("hidden"))) double hypot(double x, double y) {
  double larger = fmax(fabs(x), fabs(y)), smaller = fmin(fabs(x), fabs(y));
  if (isinf(x) || isinf(y)) return INFINITY;
  if (larger == 0 || isnan(larger) || isnan(smaller)) return isnan(x) || isnan(y) ? NAN : larger;
  double ratio = smaller / larger;
  return larger * sqrt(1 + ratio * ratio);
}

__attribute__((visibility("hidden"))) float hypotf(float x, float y) { return (float)hypot(x, y); }
