"""Conversations of the third set: a coding agent's, with code, differences, logs, and JSON in the system prompt, in six languages."""

import json
import random

LANGUAGES = {
    "en": "kettle lantern orchard velvet granite pepper saddle harvest copper meadow violin candle thistle barrel ribbon marble compass feather anchor walnut".split(),
    "fr": "bouilloire lanterne verger velours poivre selle récolte cuivre prairie violon bougie chardon tonneau ruban marbre boussole plume ancre noix château été".split(),
    "es": "tetera farol huerto terciopelo granito pimienta cosecha cobre pradera violín vela cardo barril cinta mármol brújula pluma ancla nuez señal mañana".split(),
    "ko": "주전자 등불 과수원 벨벳 화강암 후추 안장 수확 구리 초원 바이올린 촛불 엉겅퀴 통 리본 대리석 나침반 깃털 닻 호두".split(),
    "hi": "केतली लालटेन बाग मखमल ग्रेनाइट मिर्च काठी फसल तांबा घास वायलिन मोमबत्ती पीपा फीता संगमरमर कम्पास पंख लंगर अखरोट".split(),
    "tr": "çaydanlık fener meyvelik kadife granit biber eyer hasat bakır çayır keman mum diken fıçı kurdele mermer pusula tüy çapa ceviz".split(),
}
CALLS = ["grep", "open_file", "shell", "edit_file", "web_search", "list_orders"]


class Voice:
    def __init__(self, seed, language):
        self.random = random.Random(f"third {seed} {language}")
        self.language = language

    def words(self, low, high):
        return [self.random.choice(LANGUAGES[self.language]) for _ in range(self.random.randint(low, high))]

    def sentence(self, low=5, high=13):
        text = " ".join(self.words(low, high))
        return text[0].upper() + text[1:] + self.random.choice(["।" if self.language == "hi" else ".", "!", "."])

    def text(self, count):
        return " ".join(self.sentence() for _ in range(count))

    def code(self, count):
        lines = ["```python"]
        for n in range(count):
            name, other = self.random.choice(LANGUAGES["en"]), self.random.choice(LANGUAGES["en"])
            lines += [f"def {name}_{n}({other}, *, limit={self.random.randint(1, 90)}):", f"    # {self.sentence(3, 7)}",
                      f"    return [{other}.{name}(i) for i in range(limit) if i % {self.random.randint(2, 9)}]", ""]
        return "\n".join(lines + ["```"])

    def diff(self, count):
        lines = [f"--- a/{self.random.choice(LANGUAGES['en'])}.py", f"+++ b/{self.random.choice(LANGUAGES['en'])}.py"]
        for n in range(count):
            at = self.random.randint(3, 400)
            lines += [f"@@ -{at},3 +{at},4 @@", f"     {' '.join(self.words(2, 5))}", f"-    {' '.join(self.words(3, 6))}", f"+    {' '.join(self.words(3, 6))}"]
        return "\n".join(lines)

    def log(self, count):
        return "\n".join(f"[{n:4}] {self.random.choice(['PASS', 'FAIL', 'SKIP'])} tests/{'_'.join(self.random.sample(LANGUAGES['en'], 2))}.rs ({self.random.randint(1, 999)} ms)" for n in range(count))

    def digits(self, count):
        return "".join(self.random.choice("0123456789") for _ in range(count))

    def mixed(self, count, alphabet="abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"):
        return "".join(self.random.choice(alphabet) for _ in range(count - 3)) + "q7Z"

    def hexa(self, count):
        return "".join(self.random.choice("0123456789abcdef") for _ in range(count - 2)) + "e4"


def parameters(v):
    return {"type": "object", "properties": {
        "pattern": {"type": "string", "description": v.sentence()}, "paths": {"type": "array", "items": {"type": "string"}, "minItems": 1},
        "mode": {"type": "string", "enum": ["fast", "deep", "exact"], "description": v.sentence()}, "depth": {"type": "integer", "minimum": 0, "maximum": 12}},
        "required": ["pattern", "mode"], "additionalProperties": False}


def conversation(seed, language, rounds=16):
    v = Voice(seed, language)
    settings = {"team": v.sentence(2, 4), "style": {"indent": 4, "quotes": "double"}, "limits": {"files": 20, "ratio": 0.75}}
    memory = "\n".join(f"* {v.sentence()}" for _ in range(5))
    guides = "\n\n".join(f"### {name}\n{v.text(2)}\n{v.text(1)}" for name in ("Naming", "Errors", "Tests", "Commits"))
    system = f"# Role\n{v.text(3)}\n\n## Memory\n{memory}\n\n## Settings\n{json.dumps(settings, ensure_ascii=False)}\n\n{guides}\n\n## Closing\n{v.text(4)}"
    talk = [{"kind": "user", "text": f"{v.text(3)}\n\n{v.code(3)}"}]
    for n in range(rounds):
        if n % 4 == 3:
            talk.append({"kind": "assistant", "text": v.text(3), "reasoning": v.text(3), "calls": []})
            talk.append({"kind": "user", "text": v.text(2) + ("\n" + v.diff(2) if n % 8 == 3 else "")})
            continue
        call = {"id": f"tc-{v.mixed(10)}", "name": CALLS[n % 5], "args": {"pattern": " ".join(v.words(1, 3)), "mode": "deep", "paths": ["src", f"lib/{n}"], "depth": n % 7, "ratio": 0.125}}
        talk.append({"kind": "assistant", "text": v.sentence(), "reasoning": v.text(2), "calls": [call]})
        text = [v.log(14), json.dumps({"hits": [{"file": f"{w}.py", "line": n * 3 + k, "score": 0.5, "text": v.sentence(2, 5)} for k, w in enumerate(v.words(5, 5))], "more": False}, ensure_ascii=False), v.diff(5)][n % 3]
        talk.append({"kind": "result", "id": call["id"], "name": call["name"], "text": text})
    return {"model": "orchard-13b", "system": system, "talk": talk, "tools": [{"name": c, "text": v.text(2), "schema": parameters(v)} for c in CALLS], "more": {}}


def steps(whole):
    talk = whole["talk"]
    return [{**whole, "talk": talk[: i + 1]} for i, t in enumerate(talk) if t["kind"] != "assistant"]
