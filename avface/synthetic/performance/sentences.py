"""Random sentences from templates and word lists in several languages.

They cover the phonemes of each language in natural contexts and rhythm; their meaning is irrelevant.
"""
# ruff: noqa: RUF001 - languages have letters of their own

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Language:
    """Templates, word lists and espeak-ng voices of a language."""

    voices: tuple[str, ...]
    """Names that `speak` takes."""
    templates: tuple[str, ...]
    """Sentences whose {slots} name a word list; {number} is a number."""
    words: dict[str, tuple[str, ...]]
    """Word lists by slot."""


def _words(**lists: str) -> dict[str, tuple[str, ...]]:
    return {slot: tuple(word.strip() for word in text.split(",")) for slot, text in lists.items()}


_ENGLISH_TEMPLATES = (
    "{who} bought {thing} {place}.",
    "Have you seen {thing} {place}?",
    "I would rather have {thing} than {thing}.",
    "{who} will be back {when}, I suppose.",
    "Well, {number} people came {when}, and only {number} stayed.",
    "Put {thing} and {thing} {place}, please!",
    "When {who} was young, we used to live {place}.",
    "The number is {number}, {number}, {number}.",
    "No, that is {how}. It was {how} {when}.",
    "Why does {who} always leave {thing} {place}?",
    "We waited for {number} hours, but {who} never showed up.",
    "Oh, how {how}! Thank you very much for {thing}.",
    "Perhaps we should move {thing} before {who} arrives.",
    "My favourite colour is blue, {who} prefers purple or brown.",
)
_ENGLISH_WORDS = _words(
    who="my mother, Peter's brother, the baker, your father, "
    "Miss Webber, the whole family, Bob, a friend of mine, "
    "the vet, George, somebody, Olive, the young painter, Humphrey",
    thing="a purple umbrella, five apples, the blue paper, "
    "a pair of boots, some warm bread, the wooden box, a map, "
    "the old piano, seven books, a cup of coffee, "
    "a very big fish, the shoes, my phone, that funny movie, a bowl of soup, "
    "the yellow flowers, a vase, the bathroom mirror, a thick woollen jumper, your watch",
    place="by the river, at home, above the shop, "
    "in the middle of the bridge, under the table, at the museum, "
    "over there, in the garden, outside, between two houses, on the moon, at the bus stop",
    when="tomorrow, this morning, before five, in February, "
    "a while ago, at noon, every week, after supper, on Monday",
    how="wonderful, awful, far too loud, simply beautiful, "
    "impossible, very odd, quite good, above average, cheap, boring",
)

LANGUAGES: dict[str, Language] = {
    "en-us": Language(("en-us",), _ENGLISH_TEMPLATES, _ENGLISH_WORDS),
    "en-gb": Language(("en-gb-x-rp", "en-gb-scotland"), _ENGLISH_TEMPLATES, _ENGLISH_WORDS),
    "de": Language(
        ("de",),
        (
            "{who} hat {when} {thing} gekauft.",
            "Haben Sie {thing} gesehen?",
            "Wir wohnen {place}, und zwar schon {number} Jahre.",
            "Ich möchte bitte {thing} und {thing}.",
            "Warum liegt {thing} {place}?",
            "Um {number} Uhr kommt {who} nach Hause.",
            "Das war {when} wirklich {how}!",
            "{number} Leute warten {place} auf {thing}.",
            "Ach, wie {how}! Vielen Dank für {thing}.",
            "Früher war hier alles {how}, meint {who}.",
        ),
        _words(
            who="meine Mutter, der Bäcker, Frau Pfeiffer, mein Bruder, Uwe, "
            "die ganze Familie, ein Freund, der Vogel",
            thing="fünf Äpfel, das blaue Buch, ein Stück Brot, die Wurst, "
            "eine Pfanne, zwölf Bücher, das Fahrrad, "
            "einen Apfelbaum, die Möbel, eine Suppe, ein Bier, das Papier, den Schlüssel, vier Hühner",
            place="am Ufer, zu Hause, über der Brücke, in Hamburg, "
            "unter dem Tisch, vor dem Museum, im Frühling draußen",
            when="heute, am Mittwoch, vor fünf Wochen, im Februar, gestern Abend, übermorgen",
            how="schön, furchtbar, möglich, sehr laut, wunderbar, müde, böse, völlig verrückt",
        ),
    ),
    "fr": Language(
        ("fr",),
        (
            "{who} a acheté {thing} {when}.",
            "Avez-vous vu {thing} ?",
            "Je voudrais {thing} et {thing}, s'il vous plaît.",
            "Il y a {number} personnes {place}.",
            "Nous habitons {place} depuis {number} ans.",
            "C'était vraiment {how} {when}.",
            "Pourquoi {who} a-t-il laissé {thing} {place} ?",
            "Oh, que c'est {how} ! Merci beaucoup pour {thing}.",
            "{who} viendra {when}, je suppose.",
        ),
        _words(
            who="mon père, le boulanger, Paul, mon beau-frère, Hugues, "
            "un vieux monsieur, ce peintre, mon voisin",
            thing="deux pommes, un peu de beurre, le parapluie bleu, "
            "une bouteille de vin, le journal, un bon pain, "
            "des oeufs, la voiture jaune, un manteau brun, les fleurs, une jupe, un fauteuil, huit poissons",
            place="à la maison, au bord du fleuve, sous la table, "
            "devant le musée, dans la rue, en Bourgogne, là-bas",
            when="hier, ce matin, en février, jeudi soir, tout à l'heure, demain peut-être",
            how="magnifique, horrible, beaucoup trop long, impossible, bien, joli, très drôle, affreux",
        ),
    ),
    "es": Language(
        ("es", "es-419"),
        (
            "{who} compró {thing} {when}.",
            "¿Has visto {thing}?",
            "Quiero {thing} y {thing}, por favor.",
            "Hay {number} personas {place}.",
            "Vivimos {place} desde hace {number} años.",
            "¡Qué {how}! Muchas gracias por {thing}.",
            "¿Por qué está {thing} {place}?",
            "{who} vuelve {when}, me parece.",
            "Todo fue muy {how} {when}.",
        ),
        _words(
            who="mi madre, el panadero, Pablo, un buen amigo, la abuela, "
            "el vecino, mi hermano mayor, Guadalupe",
            thing="un poco de pan, dos manzanas, el paraguas verde, "
            "una botella de vino, el libro nuevo, la bicicleta, "
            "los zapatos, un huevo, el jabón, la llave, una sopa, muchas flores, el reloj amarillo",
            place="en casa, junto al río, bajo la mesa, en el puente, "
            "cerca del museo, en Buenos Aires, afuera",
            when="ayer, esta mañana, en febrero, el jueves, mañana por la noche, hace poco",
            how="bonito, horrible, bueno, imposible, extraño, divertido, largo",
        ),
    ),
    "it": Language(
        ("it",),
        (
            "{who} ha comprato {thing} {when}.",
            "Hai visto {thing}?",
            "Vorrei {thing} e {thing}, per favore.",
            "Ci sono {number} persone {place}.",
            "Abitiamo {place} da {number} anni.",
            "Che {how}! Grazie mille per {thing}.",
            "Perché {who} lascia sempre {thing} {place}?",
            "Penso che sia molto {how}.",
        ),
        _words(
            who="mia madre, il fornaio, Giovanni, un buon amico, la nonna, il vicino, mio fratello, Beatrice",
            thing="un po' di pane, due mele, l'ombrello blu, "
            "una bottiglia di vino, il libro nuovo, la bicicletta, "
            "le scarpe, un uovo, gli spaghetti, la chiave, una zuppa, molti fiori, il pesce, la giacca",
            place="a casa, vicino al fiume, sotto il tavolo, sul ponte, davanti al museo, a Bologna, fuori",
            when="ieri, stamattina, a febbraio, giovedì, domani sera, poco fa",
            how="bello, orribile, buono, impossibile, strano, lungo, meraviglioso",
        ),
    ),
    "pt": Language(
        ("pt", "pt-br"),
        (
            "{who} comprou {thing} {when}.",
            "Você viu {thing}?",
            "Eu queria {thing} e {thing}, por favor.",
            "Havia {number} pessoas {place}.",
            "Moramos {place} há {number} anos.",
            "Que {how}! Muito obrigado por {thing}.",
            "Por que {who} deixou {thing} {place}?",
            "Foi tudo muito {how} {when}.",
        ),
        _words(
            who="minha mãe, o padeiro, João, um bom amigo, a avó, o vizinho, meu irmão, Beatriz",
            thing="um pouco de pão, duas maçãs, o guarda-chuva azul, "
            "uma garrafa de vinho, o livro novo, a bicicleta, "
            "os sapatos, um ovo, o peixe, a chave, uma sopa, muitas flores, o relógio amarelo",
            place="em casa, perto do rio, embaixo da mesa, na ponte, no museu, em Lisboa, lá fora",
            when="ontem, hoje de manhã, em fevereiro, na quinta-feira, amanhã à noite, há pouco",
            how="bonito, horrível, bom, impossível, estranho, longo, divertido",
        ),
    ),
    "nl": Language(
        ("nl",),
        (
            "{who} heeft {when} {thing} gekocht.",
            "Heb jij {thing} gezien?",
            "Ik wil graag {thing} en {thing}.",
            "Er zijn {number} mensen {place}.",
            "Wij wonen al {number} jaar {place}.",
            "Wat {how}! Dank je wel voor {thing}.",
            "Waarom ligt {thing} {place}?",
            "Volgens {who} was het heel {how}.",
        ),
        _words(
            who="mijn moeder, de bakker, mijn broer, oma, de buurvrouw, een goede vriend, Wouter",
            thing="een beetje boter, twee appels, het blauwe boek, "
            "een fles wijn, de nieuwe fiets, vijf eieren, de sleutel, "
            "een kopje koffie, de schoenen, een grote vis, het papier, de paraplu",
            place="thuis, bij de rivier, onder de tafel, op de brug, voor het museum, in Utrecht, buiten",
            when="gisteren, vanmorgen, in februari, op vrijdag, morgenavond, zopas",
            how="mooi, vreselijk, goed, onmogelijk, vreemd, leuk, duur",
        ),
    ),
    "pl": Language(
        ("pl",),
        (
            "{who} ma {thing} {place}.",
            "Czy to jest {thing}?",
            "Poproszę {thing} i {thing}.",
            "Było nas {number} {place}.",
            "Och, jak {how}! Bardzo dziękuję za {thing}.",
            "Dlaczego {thing} leży {place}?",
            "{when} było bardzo {how}.",
        ),
        _words(
            who="moja mama, piekarz, mój brat, babcia, sąsiad, dobry przyjaciel, Paweł",
            thing="chleb i masło, dwa jabłka, niebieski parasol, nowy rower, "
            "pięć bułek, klucz, dobra zupa, wielki stół, "
            "żółty samochód, papier, książka, buty",
            place="w domu, nad rzeką, pod stołem, na moście, przed muzeum, w Warszawie, tutaj",
            when="wczoraj, dzisiaj rano, w lutym, we wtorek, jutro wieczorem",
            how="ładnie, okropnie, dobrze, dziwnie, głośno, miło",
        ),
    ),
    "sv": Language(
        ("sv",),
        (
            "{who} köpte {thing} {when}.",
            "Har du sett {thing}?",
            "Jag skulle vilja ha {thing} och {thing}.",
            "Det var {number} personer {place}.",
            "Vi har bott {place} i {number} år.",
            "Vad {how}! Tack så mycket för {thing}.",
            "Varför ligger {thing} {place}?",
        ),
        _words(
            who="min mamma, bagaren, Björn, mormor, grannen, en god vän, hela familjen",
            thing="lite smör, två äpplen, den blå boken, en ny cykel, fem ägg, "
            "nyckeln, en kopp kaffe, skorna, en stor fisk, "
            "paraplyet, brödet, sju tidningar",
            place="hemma, vid floden, under bordet, på bron, framför museet, i Uppsala, där ute",
            when="i går, i morse, i februari, på fredag, i morgon kväll, nyss",
            how="vackert, hemskt, bra, omöjligt, konstigt, roligt, dyrt",
        ),
    ),
    "tr": Language(
        ("tr",),
        (
            "{who} {when} {thing} aldı.",
            "{thing} gördün mü?",
            "Lütfen {thing} ve {thing} verin.",
            "{place} {number} kişi vardı.",
            "{number} yıldır {place} oturuyoruz.",
            "Ne kadar {how}! Çok teşekkür ederim.",
            "{who} {place} ne yapıyor?",
        ),
        _words(
            who="annem, fırıncı, büyük babam, komşumuz, bir arkadaşım, Mehmet, öğretmen",
            thing="biraz ekmek, iki elma, mavi şemsiye, yeni bir bisiklet, "
            "beş yumurta, anahtar, bir fincan kahve, "
            "ayakkabı, büyük bir balık, çorba, kitap, gömlek",
            place="evde, köprüde, masanın altında, müzenin önünde, bahçede, dışarıda, İzmir'de",
            when="dün, bu sabah, şubatta, perşembe günü, yarın akşam, az önce",
            how="güzel, kötü, uzun, garip, komik, pahalı",
        ),
    ),
    "fi": Language(
        ("fi",),
        (
            "{who} osti {thing} {when}.",
            "Oletko nähnyt {place} kissaa?",
            "Haluaisin {thing} ja {thing}, kiitos.",
            "Siellä oli {number} ihmistä {place}.",
            "Se oli {when} todella {how}.",
            "Voi kuinka {how}! Paljon kiitoksia.",
            "{who} tulee takaisin {when}.",
        ),
        _words(
            who="äiti, leipuri, veljeni, mummo, naapuri, hyvä ystävä, Väinö",
            thing="vähän voita, kaksi omenaa, sinisen kirjan, uuden pyörän, "
            "viisi munaa, avaimen, kupin kahvia, kengät, "
            "ison kalan, leipää, puuroa",
            place="kotona, joen rannalla, pöydän alla, sillalla, museon edessä, Oulussa, ulkona",
            when="eilen, tänä aamuna, helmikuussa, perjantaina, huomenna, äsken",
            how="kaunista, kamalaa, hyvää, mahdotonta, outoa, hauskaa",
        ),
    ),
}
"""By name of the language."""

TIMBRES = (
    *("m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "f1", "steph2", "steph3", "f4", "grandma"),
    *("Alex", "aunty", "Andrea", "Annie", "Denis", "Diogo", "Gene", "Henrique", "Hugo", "Jacky", "Lee"),
    *("Marco", "Mario", "Michael", "Mike", "adam", "anika", "antonio", "belinda", "benjamin", "boris"),
    *("david", "ed", "edward", "ian", "john", "linda", "marcelo", "max", "michel", "miguel"),
    *("norbert", "pablo", "paul", "pedro", "quincy", "robert", "Gene2", "shelby", "steph"),
    *("travis", "gustave", "zac"),
)
"""espeak-ng's natural-sounding variants; a voice is named language+variant, such as "fr+f4". Variants that proved
non-deterministic have been replaced in place, so that random draws of the others don't change."""


def sample_sentence(rng: np.random.Generator, language: str) -> str:
    """A random sentence with capital letter and final punctuation mark."""
    chosen = LANGUAGES[language]

    def filled(slot: re.Match[str]) -> str:
        if slot[1] == "number":
            return str(_number(rng))
        return str(rng.choice(chosen.words[slot[1]]))

    sentence = re.sub(r"\{(\w+)\}", filled, str(rng.choice(chosen.templates)))
    return sentence[0].upper() + sentence[1:]


def sample_voice(rng: np.random.Generator, language: str) -> str:
    """A random voice of a language with a random timbre, as `speak` takes it."""
    return f"{rng.choice(LANGUAGES[language].voices)}+{rng.choice(TIMBRES)}"


def _number(rng: np.random.Generator) -> int:
    """A number of 1 to 4 digits, each length equally likely."""
    return int(rng.integers(2, 10 ** int(rng.integers(1, 5))))
