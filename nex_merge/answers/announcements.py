"""How answers are announced, by language: data that the readers of numbers, choices and texts share.

Every field is an alternative of a regular expression, without flags; readers join the languages' and ignore case.
Latin letters that a language's words share with English ones of another meaning (an, die, on) are left out.
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Language:
    """What one language says around an answer; '' where it says nothing of the kind."""

    code: str
    needles: str  # one of these, in lower case, is in whatever announces: looking for them first is faster
    answer: str  # nouns that announce, if a verb, a colon or a dash follows
    verb: str  # what may stand between noun and answer
    option: str  # nouns before an option's letter
    pick: str = ""  # what a letter follows that is picked
    right: str = ""  # what follows a letter that is called right
    wrong: str = ""  # what follows a letter that is called wrong
    article: str = ""  # before an option
    so: str = ""  # before a conclusion
    joint: str = ""  # "and", "or", between options
    states: str = ""  # words right before a number that is stated
    qualifies: str = ""  # words before a number that only says more of another
    out_of: str = ""  # between a part and the whole: 7 out of 12
    filler: str = ""  # words between an announcement and its answer
    denies: str = ""  # what denies an announcement or a number
    but: str = ""  # between what is denied and what is so
    none_left: str = ""  # says that 0 are left
    reason: str = ""  # begins the reason of an answer
    question: str = ""  # heads another question
    user: str = ""  # names the one who asks
    common: str = ""  # words that show the language, of those that write 3,5 for three and a half
    dotted_thousands: bool = False  # and 1.250 for 1250


LANGUAGES = (
    Language(
        "en",
        needles="ans final",
        answer=r"answers?|ans|final (?:result|value|total|solution)",
        verb=r"is|are|was|were|would be|should be|must be|has to be|will be|comes out (?:to|as)|equals",
        option=r"options?|choices?|letters?|answers?|alternatives?",
        article="the",
        out_of="out of(?: a (?:possible|total of))?",
        none_left=(
            r"\bno(?: more)?(?: [^\W\d]+){1,3}? (?:(?:is|are|was|were) )?(?:left|remain(?:s|ed|ing)?)\b(?!-?\s?over)"
            r"|\b(?:none|nothing|no one|nobody)(?: of (?:the|his|her|their|them|it)(?: [^\W\d]+)?)?"
            r"(?: (?:is|are|was|were))? (?:left|remain(?:s|ed|ing)?)\b(?!-?\s?over)"
            r"|\b(?:isn't|aren't|wasn't|weren't|not) any(?: more)?(?: [^\W\d]+){0,3}? (?:left|remaining)\b(?!-?\s?over)"
            r"|\bleft with (?:nothing|none)\b|\b(?:has|have|had|there (?:is|are|were|was)) none\b(?! of)"
        ),
        reason="because|since",
        question=r"questions?|problem|exercise|task|instructions?|input|query|prompt",
        user="human|user",
    ),
    Language(
        "es",
        needles="respuesta resultado",
        answer="respuesta(?: (?:correcta|final))?|resultado final",
        verb=r"es|son|sería|será|seria|debe ser",
        option=r"correct[ao]|opción|opcion|alternativa|letra|respuesta|inciso",
        pick=(
            r"(?:elijo|elegimos|escojo|escogemos|selecciono|seleccionamos|marco|opto por|me quedo con"
            r"|(?:creo|pienso) que es)"
        ),
        right=(
            r"(?:es|está) (?:claramente )?(?:la |el |lo )?(?:respuesta |opción |única )?(?:correct[ao]"
            r"|adecuad[ao]|verdader[ao])"
        ),
        wrong=r"no es|es (?:incorrect|fals)[ao]",
        article="la|el",
        so="por lo tanto|por tanto|así que|entonces|luego",
        joint="y|o|u",
        states="es son quedan queda tiene tienen gana paga pagó cuesta cuestan gasta gastó hay total necesita",
        qualifies="por para durante entre cada sobre",
        out_of="de(?: (?:las|los|sus|un total de))?",
        filler="entonces por tanto lo de unos unas aproximadamente exactamente",
        denies="no(?= (?:es|son|sería|puede))",
        but="sino(?: que)?",
        none_left=r"\bno (?:le |les )?qued(?:a|an|ó|aron) (?:ning[uú]n[ao]?|nada)\b",
        reason="porque|ya que|pues|dado que",
        question="pregunta|problema|ejercicio|instrucción|instrucciones",
        user="usuario|humano",
        common="el las los que por con una del queda quedan tiene",
    ),
    Language(
        "fr",
        needles="ponse sultat",
        answer="r[ée]ponse(?: (?:correcte|finale|exacte))?|r[ée]sultat final",
        verb=r"est|sont|serait|sera|doit être|vaut",
        option=r"option|lettre|réponse|proposition|choix",
        pick=r"(?:je (?:choisis|sélectionne|retiens|coche)|j'opte pour|c'est|il s'agit de)",
        right=(
            r"est (?:clairement )?(?:la |le )?(?:seule )?(?:bonne|correcte?|exacte?|juste|vraie|meilleure)"
            r"|est la (?:réponse|solution)"
        ),
        wrong=r"n'est pas|est (?:fausse?|incorrecte?)",
        article="la|le|les|l'",
        so="donc|ainsi|par conséquent|alors",
        joint="et|ou",
        states="est sont reste restent a ont gagne paie paye coûte coûtent dépense total fait égale",
        qualifies="pour par pendant chez dans parmi après avec",
        out_of=r"sur(?: (?:les|ses|un total de))?",
        filler="donc alors ainsi de environ exactement",
        denies="pas",
        but="mais",
        none_left=(
            r"\bil n(?:e |')(?:lui |leur )?(?:en )?reste (?:plus )?(?:rien|aucune?|d'|de |pas )"
            r"|\bil n(?:e |')(?:lui |leur )?(?:en )?reste plus\b|\bn'a plus (?:rien|de |d')"
        ),
        reason="car (?:c'est|ce|il|elle|la|le|les|on|cette)|parce que|puisque",
        question="problème|exercice|consigne",
        user="utilisateur|humain",
        common="le les des est une dans elle il reste pour",
    ),
    Language(
        "de",
        needles="antwort endergebnis buchstabe",
        answer="antwort|endergebnis|lösungsbuchstabe",
        verb=r"ist|sind|lautet|wäre|beträgt|muss sein",
        option=r"option|antwort|antwortmöglichkeit|möglichkeit|lösung|buchstabe|auswahl|aussage",
        pick=(
            r"(?:ich (?:wähle|nehme|entscheide mich für)|richtig ist|korrekt ist|es ist"
            r"|ist die (?:richtige|korrekte) (?:antwort|option|lösung))"
        ),
        right=(
            r"ist (?:eindeutig |also |daher )?(?:(?:die|das) )?(?:einzig )?(?:richtige?|korrekte?"
            r"|zutreffend|beste)|richtig|korrekt"
        ),
        wrong=r"ist (?:nicht|falsch|inkorrekt)",
        article="die|der|das",
        so="also|daher|deshalb|folglich|somit",
        joint="und|oder",
        states=(
            "ist sind bleiben bleibt hat haben verdient zahlt bezahlt kostet kosten braucht ergibt beträgt insgesamt"
        ),
        qualifies="für pro nach bei mit aus während",
        out_of="von(?: (?:den|insgesamt|ihren|seinen))?|der|aus",
        filler="also daher somit demnach etwa rund ungefähr genau",
        denies="nicht|kein|keine",
        but="sondern",
        none_left=(
            r"\bhat keine?(?: \w+)? mehr\b|\bkeine?(?: \w+){0,2}? (?:mehr )?übrig\b|\bnichts (?:mehr )?übrig\b"
            r"|\bbleib(?:t|en) (?:also |somit )?keine?(?: \w+)?(?: übrig)?\b"
        ),
        reason="weil|denn|da (?:es|sie|er|die|der|das)",
        question="frage|aufgabe|anweisung|eingabe",
        user="benutzer|nutzer|mensch",
        common="der das und ist ein eine nicht sind hat die",
        dotted_thousands=True,
    ),
    Language(
        "it",
        needles="risposta risultato",
        answer="risposta(?: (?:corretta|finale|esatta))?|risultato finale",
        verb=r"è|e'|sono|sarebbe|sarà|deve essere",
        option=r"opzione|lettera|risposta|alternativa",
        pick=r"(?:scelgo|scegliamo|seleziono|opto per)",
        right=(
            r"è (?:chiaramente )?(?:la |l'|il )?(?:risposta |opzione |unica )?(?:corrett[ao]|giust[ao]"
            r"|esatt[ao]|migliore)"
        ),
        wrong=r"non è|è (?:sbagliat|errat|fals)[ao]",
        article="la|l'|il|lo",
        so="quindi|dunque|pertanto|perciò",
        joint="e|o|oppure",
        states="è sono rimangono rimane restano resta ha hanno guadagna paga costa costano spende totale",
        qualifies="per durante dopo con ogni",
        out_of="su|di",
        filler="quindi dunque pertanto di circa esattamente",
        denies="non(?= (?:è|sono|può))",
        but="ma|bensì",
        none_left=(
            r"\bnon (?:gli |le |ne |gliene )?(?:rimane|rimangono|resta|restano) (?:più )?(?:nessun[ao]?"
            r"|niente|nulla)\b"
        ),
        reason="perché|poiché|dato che",
        question="domanda|esercizio|istruzione",
        user="utente|umano",
        common="il che di della una sono gli è",
        dotted_thousands=True,
    ),
    Language(
        "pt",
        needles="resposta gabarito resultado",
        answer="resposta(?: (?:correta|certa|final))?|gabarito|resultado final",
        verb=r"é|são|seria|será|deve ser",
        option=r"opção|opcao|alternativa|letra|resposta",
        pick=r"(?:escolho|escolhemos|seleciono|marco|opto por|fico com)",
        right=(
            r"(?:é|está) (?:claramente )?(?:a |o )?(?:resposta |opção |alternativa "
            r"|única )?(?:corret[ao]|cert[ao]|verdadeir[ao])"
        ),
        wrong=r"não é|está errad[ao]|é (?:incorret|fals)[ao]",
        article="a|o",
        so="portanto|logo|então|assim",
        joint="e|ou",
        states="é são sobram sobra restam resta tem têm ganha paga custa custam gasta total há",
        qualifies="por para durante após com cada",
        out_of=r"de(?: (?:um total de))?|das|dos",
        filler="portanto então de cerca aproximadamente exatamente",
        denies="não",
        but="mas(?: sim)?|e sim",
        none_left=r"\bnão (?:sobr(?:a|am|ou|aram)|rest(?:a|am|ou|aram)) (?:mais )?(?:nenhum[a]?|nada)\b",
        reason="porque|pois|já que",
        question="pergunta|questão|exercício|instrução",
        user="usuário|utilizador",
        common="não uma dos são tem das",
        dotted_thousands=True,
    ),
    Language(
        "ru",
        needles="ответ",
        answer=r"ответ(?:ом)?",
        verb=r"равен|равна|равно|будет|составляет|является",
        option=r"вариант(?:а|ом)?|ответ|букв[аы]|пункт",
        pick=r"(?:выбираю|выбираем|выберем|выбрать|верно|правильно)",
        right=r"(?:[-:] )?(?:является )?(?:это )?(?:правильн|верн)(?:ый|ым|о|ая|ое|ен)(?!\w)",
        wrong=r"(?:[-:] )?(?:не\b|неверн|неправильн)",
        so="значит|следовательно|поэтому|итак|таким образом",
        joint="и|или",
        states="равно равен осталось остаётся остается стоит стоят заработает заработал заплатит всего получится имеет",
        qualifies="в за по для при после через каждый каждые",
        out_of="из",
        filler="равен равна равно примерно около ровно будет это",
        denies="не",
        but="а|но",
        none_left=r"\b(?:ничего|ни одн(?:ого|ой)(?: \w+)?) не остал(?:ось|ся|ась)\b|\bне осталось\b",
        reason="потому что|так как|поскольку",
        question="вопрос|задача|задание|инструкция",
        user="пользователь|человек",
        common="в на и не всего осталось",
    ),
    Language(
        "vi",
        needles="đáp trả",
        answer="đáp án(?: (?:đúng|cuối cùng))?|đáp số|câu trả lời|trả lời",
        verb=r"là|bằng|sẽ là",
        option=r"đáp án|phương án|lựa chọn|câu|ý",
        pick=r"(?:chọn|khoanh)",
        right=r"là (?:đáp án |phương án |câu trả lời )?(?:đúng|chính xác)|đúng",
        wrong=r"không|sai|là sai",
        so="vậy|do đó|vì vậy|vì thế|nên",
        joint="và|hoặc|hay",
        states="là còn có bằng được trả mất cần",
        qualifies="cho mỗi trong với sau",
        out_of=r"trong (?:số|tổng số)|trên",
        filler="là khoảng đúng bằng",
        denies="không phải|không",
        but="mà là|mà",
        none_left=r"\bkhông còn\b",
        reason="vì|bởi vì",
        question=r"câu hỏi|câu(?= ?\d)|bài(?= ?\d)|bài toán|bài tập|đề bài|hướng dẫn",
        user="người dùng",
        common="là và của còn có",
        dotted_thousands=True,
    ),
    Language(
        "nl",
        needles="antwoord",
        answer="antwoord|eindantwoord",
        verb=r"is|luidt|zijn",
        option=r"optie|antwoord|letter|keuze",
        pick=r"(?:ik kies)",
        right=r"is (?:het )?(?:juist|juiste|correct|correcte|goed|goede)",
        article="het|de",
        so="dus|daarom",
        joint="en|of",
        none_left=r"\bgeen(?: \w+)? (?:meer )?over\b",
        question="vraag|opgave",
        user="gebruiker",
        reason="omdat",
        denies="niet",
        but="maar",
        common="het een dus zijn van",
        dotted_thousands=True,
    ),
    Language(
        "pl",
        needles="odpowied",
        answer="odpowiedź|odpowiedzią",
        verb=r"to|jest|wynosi|brzmi",
        option=r"opcja|odpowiedź|litera",
        pick=r"(?:wybieram)",
        right=r"jest (?:poprawna|prawidłowa|właściwa)",
        so="więc|zatem",
        question="pytanie|zadanie",
        user="użytkownik",
        reason="ponieważ",
        denies="nie",
        common="jest się to",
    ),
    Language(
        "tr",
        needles="cevap cevab yanıt",
        answer="cevap|yanıt|cevabı",
        verb=r"şudur|olur",
        option=r"seçenek|şık|cevap",
        pick=r"doğru (?:cevap|seçenek|yanıt)",
        right=r"(?:seçeneği |şıkkı )?doğru(?:dur)?",
        so="öyleyse|dolayısıyla",
        question="soru|problem",
        user="kullanıcı",
        reason="çünkü",
        common="bir ve bu",
        dotted_thousands=True,
    ),
    Language(
        "id",
        needles="jawaban",
        answer="jawaban(?:nya)?(?: (?:yang )?(?:benar|tepat|akhir))?",
        verb=r"adalah|ialah|yaitu",
        option=r"opsi|pilihan|jawaban",
        pick=r"(?:saya memilih)",
        right=r"adalah (?:jawaban )?(?:yang )?(?:benar|tepat)|benar",
        so="jadi|maka",
        question="pertanyaan|soal",
        user="pengguna",
        reason="karena",
        denies="bukan",
        common="adalah yang dan",
        dotted_thousands=True,
    ),
    Language(
        "ar",
        needles="إجابة اجابة جواب",
        answer="(?:ال)?(?:إجابة|اجابة|جواب)(?: (?:الصحيحة|النهائية|الصحيح|النهائي))?",
        verb="هي|هو",
        option="الخيار|الإجابة",
        right="صحيحة|صحيح|هي الصحيحة|هو الصحيح",
        question="السؤال|سؤال",
        user="المستخدم",
        reason="لأن",
    ),
    Language(
        "hi",
        needles="उत्तर जवाब",
        answer="उत्तर|जवाब",
        verb="है",
        option="विकल्प|उत्तर",
        pick="सही (?:उत्तर|विकल्प|जवाब)",
        right="सही",
        question="प्रश्न|सवाल",
        user="उपयोगकर्ता",
        reason="क्योंकि",
    ),
)


@dataclass(frozen=True)
class Unspaced:
    """What a language without blanks around numbers and letters says around an answer; blanks may stand anywhere."""

    code: str
    needles: str
    announcement: str  # the whole of it, up to the answer
    pick: str
    right: str
    wrong: str
    option: str
    so: str
    joint: str
    denies: str
    but: str
    none_left: str
    question: str
    user: str
    reason: str
    endings: str  # what ends a sentence behind an answer: "です"


UNSPACED = (
    Unspaced(
        "zh",
        needles="答 确 確 结果 結果",
        announcement=(
            r"(?:答案|正[确確][选選][项項]|最[终終][结結]果)"
            r"(?:[^\n。，,.:：;；是为為选選\d]{0,8}?(?:不?(?:应该|應該|应|應)?(?:就)?(?:是|为|為|等于|等於)"
            r"|[选選](?:[择擇项項])?))?"
            r"】?\s*[:：=]?|(?:(?<=\n)|(?<=。)|(?<=^))\s*答\s*[:：]"
        ),
        pick=r"(?<!不)(?<!不[应能该應該])(?:[选選](?!択)[择擇]?)(?:[项項])?(?:是|为|為)?",
        right=(
            r"(?:[选選]?[项項])?\s*(?:是|为|為)?\s*(?:唯一|最佳|最)?(?:正[确確]|[对對]的|答案)(?:的|答案"
            r"|[选選][项項])?"
        ),
        wrong=r"(?:[选選]?[项項])?\s*(?:是|为)?\s*(?:不|[错錯])",
        option="[选選][项項]|答案",
        so="因此|所以|故|于是|综上",
        joint="和|或|与|與|及|、",
        denies="不是|不|并非|並非",
        but="而是|是",
        none_left=r"(?:没有|沒有|没|沒)(?:任何)?\w{0,4}?剩|(?:一|半)\w?\w?(?:也|都)(?:没|沒|不)有?剩|不剩",
        question="问题|問題|问|問|题目|題目|例题|例題|题|題|指令",
        user="用户|用戶|使用者|人类",
        reason="因为|因為|由于|由於",
        endings="",
    ),
    Unspaced(
        "ja",
        needles="答 正解",
        announcement=(
            r"(?:答え|答|正解|正答|解答|回答|最終的な答え)"
            r"(?:[^\n。、,.:：はが\d]{0,8}?は\s*[、,]?|\s*[:：=])"
        ),
        pick=r"(?:最も\s?)?(?:適切|妥当|正しい|ふさわしい)\w{0,4}?は",
        right=r"(?:番)?\s*(?:が|は|こそ)\s*(?:正解|正しい(?!と)|正答|答え|適切|最も適切)|\s*を選(?:び|ぶ|択)",
        wrong=r"(?:は|が)\s*(?:誤|間違|正しくな|不正解|違)",
        option="選択肢",
        so="よって|したがって|従って|ゆえに|だから",
        joint="と|か|や|または|および",
        denies="ではない|ではなく|でない",
        but="ではなく",
        none_left=r"残(?:って|り)(?:は)?(?:い)?(?:ない|ません)|何も残ら|なくな(?:る|った|りま)",
        question="質問|設問|例題|指示",
        user="ユーザー|ユーザ|人間",
        reason="なぜなら",
        endings="です|である|だ|になります|となります",
    ),
    Unspaced(
        "ko",
        needles="답",
        announcement=r"(?:정답|해답|답변|(?<!\w)답)(?:\s*(?:은|는)\s*(?:바로)?|\s*[:：=])",
        pick=r"(?:옳은|맞는|올바른|알맞은) (?:것|답|선택지)은",
        right=(
            r"(?:번)?\s*(?:이|가)\s*(?:정답(?!이 아)|맞(?!지)|옳(?!지)|올바(?!르지))|\s*(?:을|를)\s*(?:선택|고르|고릅"
            r"|택)"
        ),
        wrong=r"(?:은|는|이|가)\s*(?:틀|오답|정답이 아|맞지|옳지)",
        option="선택지|보기",
        so="따라서|그러므로|그래서",
        joint="와|과|또는|및",
        denies="아니|아닌",
        but="아니라",
        none_left=r"남(?:은|아)[^\n.]{0,12}(?:없|않)|남지 않",
        question="질문|문제|예제|지시",
        user="사용자|인간",
        reason="왜냐하면",
        endings="입니다|이다|예요|이에요|이며|개입니다",
    ),
)

_WORD = re.compile(r"[^\W\d_]+")
_COMMAS = [
    (language, frozenset(language.common.split()), re.compile(rf"\b(?:{language.answer})\b", re.IGNORECASE))
    for language in LANGUAGES
    if language.common
]
_ALL = (*LANGUAGES, *UNSPACED)


def alternatives(field: str) -> str:
    """What all languages say in a field, as alternatives of a regular expression; longer ones first."""
    found = {part for language in _ALL if (part := getattr(language, field, ""))}
    return "|".join(sorted(found, key=len, reverse=True))


def spaced(field: str) -> str:
    """The same of languages with blanks between words."""
    return "|".join(part for language in LANGUAGES if (part := getattr(language, field)))


def unspaced(field: str) -> str:
    """The same of languages without."""
    return "|".join(part for language in UNSPACED if (part := getattr(language, field)))


def word_set(field: str) -> frozenset[str]:
    """The words of a field that lists them with blanks, of all languages."""
    return frozenset(word for language in _ALL for word in getattr(language, field, "").split())


def written_in(text: str) -> Language | None:
    """The language of those that write 3,5 for 3.5 in which a text is, by its commonest words and nouns; else None."""
    words = frozenset(_WORD.findall(text.lower()))
    most, found = 1, None
    for language, common, noun in _COMMAS:
        # One word that no other language has is enough.
        count = sum(1 + (not word.isascii()) for word in words & common) + 2 * (noun.search(text) is not None)
        if count > most:
            most, found = count, language
    return found
