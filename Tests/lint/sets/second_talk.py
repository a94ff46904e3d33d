"""Conversations of the second set: a freight forwarder's agent, in seven languages, with nested schemas and parallel calls."""

import json
import random

LANGUAGES = {
    "en": ("invoice ledger shipment harbour carrier customs tariff pallet warehouse container manifest clearance freight audit broker "
           "route vessel crane berth delay penalty contract client driver terminal schedule tonnage signature duty exporter").split(),
    "de": ("Rechnung Lieferung Hafen Spediteur Zollamt Palette Lager Behälter Freigabe Fracht Prüfung Makler Strecke Schiff Kran "
           "Liegeplatz Verspätung Strafe Vertrag Kunde Fahrer Übergabe Zeitplan Gewicht Unterschrift Gebühr Ausfuhr Schlüssel").split(),
    "ru": ("счёт поставка порт перевозчик таможня тариф паллета склад контейнер манифест проверка брокер маршрут судно кран причал "
           "задержка штраф договор клиент водитель терминал график тоннаж подпись пошлина экспортёр").split(),
    "ar": "فاتورة شحنة ميناء ناقل جمارك تعرفة مستودع حاوية بيان تخليص تدقيق وسيط مسار سفينة رافعة رصيف تأخير غرامة عقد عميل سائق جدول توقيع".split(),
    "zh": "发票 货运 港口 承运人 海关 关税 托盘 仓库 集装箱 清单 放行 审计 经纪人 航线 船舶 起重机 泊位 延误 罚款 合同 客户 司机 码头 时间表 吨位 签名 出口商".split(),
    "ja": "請求書 出荷 港湾 運送業者 税関 関税 パレット 倉庫 コンテナ 積荷目録 通関 監査 仲介人 航路 船舶 クレーン 岸壁 遅延 違約金 契約 顧客 運転手 予定 署名 輸出者".split(),
    "pt": ("fatura remessa porto transportador alfândega tarifa palete armazém contêiner manifesto liberação auditoria corretor rota "
           "navio guindaste berço atraso multa contrato cliente motorista terminal cronograma assinatura exportação").split(),
}
TOOLS = ["lookup_tariff", "book_berth", "track_vessel", "file_declaration", "quote_freight", "notify_driver", "cancel_slot"]


class Words:
    def __init__(self, seed, language):
        self.random = random.Random(f"{seed} {language}")
        self.language = language

    def sentence(self, low=6, high=14):
        words = [self.random.choice(LANGUAGES[self.language]) for _ in range(self.random.randint(low, high))]
        if self.language in ("zh", "ja"):
            return "".join(words) + "。"
        text = " ".join(words)
        return text[0].upper() + text[1:] + "."

    def text(self, count):
        return ("" if self.language in ("zh", "ja") else " ").join(self.sentence() for _ in range(count))

    def word(self):
        return self.random.choice(LANGUAGES[self.language])

    def lines(self, count):
        return "\n".join(f"{self.random.choice(TOOLS)}\t{self.random.randint(100, 99999)}\t{self.sentence(3, 6)}" for _ in range(count))

    def hexa(self, count):
        return "".join(self.random.choice("0123456789abcdef") for _ in range(count - 2)) + "a7"

    def letters(self, count, alphabet="ABCDEFGHJKMNPQRSTVWXYZ0123456789"):
        return "".join(self.random.choice(alphabet) for _ in range(count - 2)) + "7K"


def schema(words):
    """A nested schema, as generators of clients make them."""
    return {
        "type": "object",
        "properties": {
            "query": {
                "anyOf": [{"type": "string", "description": words.sentence()}, {"type": "null"}],
                "default": None,
            },
            "filters": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "field": {"type": "string", "enum": ["port", "carrier", "tonnage"]},
                        "range": {"type": "object", "properties": {"min": {"type": "number", "default": 0.5}, "max": {"type": "number"}}, "required": ["min"]},
                    },
                    "additionalProperties": False,
                },
                "description": words.sentence(),
            },
            "options": {"$ref": "#/$defs/Options"},
        },
        "required": ["query", "filters"],
        "$defs": {"Options": {"title": "Options", "type": "object", "properties": {"verbose": {"type": "boolean"}, "note": {"type": "string", "description": words.sentence()}}}},
    }


def conversation(seed, language, turns=18):
    words = Words(seed, language)
    skills = "\n".join(f"<skill name=\"{name}\">\n{words.text(3)}\n</skill>" for name in ("customs", "berths", "freight", "drivers"))
    rules = "\n".join(f"{number}. {words.sentence()}" for number in range(1, 7))
    system = f"{words.text(3)}\n\n{rules}\n\n{skills}\n\n{words.text(6)}"
    talk = [{"kind": "user", "text": words.text(4)}]
    for turn in range(turns):
        if turn % 5 == 4:
            talk.append({"kind": "assistant", "text": words.text(3), "reasoning": words.text(2), "calls": []})
            talk.append({"kind": "user", "text": words.text(3)})
            continue
        count = 2 if turn % 5 == 2 else 1
        calls = [{"id": f"toolu_{words.letters(12)}", "name": TOOLS[(turn + n) % 5],
                  "args": {"query": words.word(), "filters": [{"field": "port", "range": {"min": 0.25 * turn, "max": 1000}}], "limit": 20 + turn}} for n in range(count)]
        talk.append({"kind": "assistant", "text": words.sentence(), "reasoning": words.text(2), "calls": calls})
        for n, call in enumerate(calls):
            if (turn + n) % 3 == 0:
                text = json.dumps({"status": "ok", "items": [{"id": 100 + k, "name": words.word(), "weight": 2.5, "tags": ["a", "b"]} for k in range(6)]}, ensure_ascii=False)
            elif (turn + n) % 3 == 1:
                text = words.lines(12)
            else:
                text = f"<html><body><h1>{words.sentence()}</h1><p>{words.text(4)}</p></body></html>"
            talk.append({"kind": "result", "id": call["id"], "name": call["name"], "text": text})
    return {
        "model": "harbour-9b", "system": system, "talk": talk,
        "tools": [{"name": name, "text": words.text(2), "schema": schema(words)} for name in TOOLS[:6]],
        "more": {},
    }


def steps(whole):
    """One request for each message of a user, and for the last of several results."""
    talk = whole["talk"]
    return [{**whole, "talk": talk[: i + 1]} for i, t in enumerate(talk)
            if t["kind"] == "user" or t["kind"] == "result" and (i + 1 == len(talk) or talk[i + 1]["kind"] != "result")]
