"""Sets of breakages that were made without a look at how they are found: other interfaces, renamed fields, other languages, values in the
forms in which programs and people of many places write them.

A conversation is abstract (a system prompt, tools, turns); each dialect writes it as a body and says where everything went. A breakage
changes the abstract conversation and says which kinds are right, at which element, and at which characters of its text.
"""

import copy
import json

from . import dialects, second, second_quiet, second_talk, third, third_quiet, third_talk
from .dialects import DIALECTS


class Set:
    def __init__(self, name, talk, words, changes, quiet):
        self.name, self.talk, self.words, self.changes, self.quiet = name, talk, words, changes, quiet
        self.languages, self.breakages, self.harmless_kinds = list(talk.LANGUAGES), list(changes.BREAKAGES), list(quiet.HARMLESS)

    def applies(self, name, dialect):
        changes = self.changes
        return not (
            name in changes.STRUCTURED and dialect in dialects.TEXT
            or name in changes.RAW_CALLS and dialect in dialects.VALUE_CALLS
            or name in changes.IDS and dialect in dialects.NO_IDS
            or name in changes.REASONING and dialect in dialects.NO_REASONING
            or name in changes.MODEL and dialect in dialects.NO_MODEL
            or name in changes.SETTINGS and dialect in dialects.NO_SETTINGS
        )

    def broken(self, name, dialect, language, place):
        """The lines of a log whose last step is broken, and what is to be found in it."""
        words = self.words(f"{name} {place}", language)
        run = self.talk.steps(self.talk.conversation(int(place * 1000), language))
        at = min(len(run) - 1, 5 + int(place * (len(run) - 6)))
        e, l = copy.deepcopy(run[at - 1]), copy.deepcopy(run[at])
        wanted = self.changes.BREAKAGES[name](e, l, place, words)
        write = DIALECTS[dialect]
        # What was sent before the break is what the earlier request has, up to as many turns as they had.
        before = [{**e, "talk": e["talk"][: len(line["talk"])]} for line in run[: at - 1]]
        body, places = write(l)
        expected = []
        for kinds, element, start, end in wanted:
            path, shift = places.get(element) or places.get(element[:1]) or (element[0], 0)
            if start is not None:
                start, end = start + shift, end + shift
            elif path == "prompt" and dialect in dialects.TEXT:
                start, end = shift - 60, shift + 5_000
            expected.append((kinds, path, start, end))
        lines = [write(line)[0] for line in before] + [write(e)[0], body]
        return [json.dumps(line, ensure_ascii=False) for line in lines], expected

    def harmless(self, kind, dialect, language, seed):
        """A log in which nothing is wrong."""
        words = self.words(f"{kind} {seed}", language)
        whole = self.talk.conversation(seed, language, 8)
        return [json.dumps(DIALECTS[dialect](line)[0], ensure_ascii=False) for line in self.quiet.HARMLESS[kind](self.talk.steps(whole), whole, words)]


SECOND = Set("second", second_talk, second_talk.Words, second, second_quiet)
THIRD = Set("third", third_talk, third_talk.Voice, third, third_quiet)
SETS = (SECOND, THIRD)
