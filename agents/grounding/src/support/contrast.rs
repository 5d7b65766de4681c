//! Negations and opposites.

/// What one text says and another denies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Contrast {
    /// One of both has a negation.
    Negation,
    /// One has a word, and the other its opposite.
    Opposite { said: String, found: String },
    /// What stands on both sides of this word is swapped.
    Swapped { by: String },
}

/// Words with two sides that are not alike.
const SIDED: [&str; 8] = ["than", "before", "after", "instead", "unless", "чем", "до", "после"];

/// Words that deny.
const NEGATIONS: [&str; 27] = [
    "not",
    "no",
    "never",
    "none",
    "cannot",
    "nothing",
    "nobody",
    "neither",
    "nor",
    "without",
    "don't",
    "doesn't",
    "isn't",
    "aren't",
    "won't",
    "can't",
    "didn't",
    "не",
    "нет",
    "ни",
    "никогда",
    "никто",
    "ничего",
    "без",
    "нельзя",
    "nicht",
    "kein",
];

/// Words of which a statement has one or the other.
const OPPOSITES: [(&[&str], &[&str]); 24] = [
    (&["before", "earlier", "до", "раньше"], &["after", "later", "после", "позже"]),
    (&["more", "больше", "более"], &["less", "fewer", "меньше", "менее"]),
    (&["most", "maximum"], &["least", "minimum"]),
    (&["above", "выше"], &["below", "ниже"]),
    (&["larger", "largest", "bigger", "larger"], &["smaller", "smallest"]),
    (&["longer", "longest"], &["shorter", "shortest"]),
    (&["higher", "highest"], &["lower", "lowest"]),
    (&["newer", "newest", "latest"], &["older", "oldest"]),
    (&["faster", "fastest", "быстрее"], &["slower", "slowest", "медленнее"]),
    (&["first", "первый", "первая", "первое", "первым"], &["last", "последний", "последняя", "последнее", "последним"]),
    (&["always", "всегда"], &["never", "никогда"]),
    (&["all", "every", "each", "все", "каждый"], &["none", "никто"]),
    (&["with", "с"], &["without", "без"]),
    (&["allowed", "accepted", "taken", "permitted"], &["refused", "rejected", "forbidden", "ignored"]),
    (&["increases", "grows", "raises", "rises"], &["decreases", "shrinks", "lowers", "falls"]),
    (&["enabled", "on"], &["disabled", "off"]),
    (&["open", "opens", "открыт", "открыта", "открывается"], &["closed", "closes", "закрыт", "закрыта", "закрывается"]),
    (&["begin", "begins", "start", "starts", "начинается"], &["end", "ends", "stop", "stops", "заканчивается"]),
    (&["required", "mandatory", "must"], &["optional"]),
    (&["public"], &["private"]),
    (&["same"], &["different", "other"]),
    (&["automatically"], &["manually"]),
    (&["left", "слева", "налево"], &["right", "справа", "направо"]),
    (&["kept", "stays", "remains"], &["removed", "deleted", "erased", "lost"]),
];

/// Words that say nothing of a subject: they are in every text.
pub(super) fn is_function_word(word: &str) -> bool {
    const WORDS: [&str; 60] = [
        "that",
        "this",
        "these",
        "those",
        "with",
        "from",
        "into",
        "than",
        "then",
        "they",
        "them",
        "their",
        "there",
        "which",
        "what",
        "when",
        "where",
        "while",
        "will",
        "would",
        "should",
        "could",
        "have",
        "does",
        "been",
        "being",
        "were",
        "such",
        "also",
        "only",
        "each",
        "every",
        "some",
        "more",
        "most",
        "very",
        "just",
        "over",
        "under",
        "your",
        "because",
        "about",
        "after",
        "before",
        "это",
        "этот",
        "того",
        "чтобы",
        "если",
        "только",
        "также",
        "когда",
        "который",
        "которая",
        "которые",
        "может",
        "можно",
        "было",
        "быть",
        "есть",
    ];
    WORDS.contains(&word.to_lowercase().as_str())
}

fn words(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !c.is_alphanumeric() && c != '\'' && c != '\u{2019}');
    words.filter(|word| !word.is_empty()).map(|word| word.to_lowercase().replace('\u{2019}', "'")).collect()
}

fn denies(words: &[String]) -> bool {
    words.iter().any(|word| NEGATIONS.contains(&word.as_str()) || word.starts_with("kein"))
}

/// Whether a statement contrasts with the nearest sentence of a passage: by a negation, or by a word whose opposite is in the passage
/// where the word itself is nowhere near.
pub(super) fn contrast(stated: &str, nearest: &str, near: &str) -> Option<Contrast> {
    let (stated, nearest, near) = (words(stated), words(nearest), words(near));
    for (one, other) in OPPOSITES {
        for (said, found) in [(one, other), (other, one)] {
            let has = |words: &[String], of: &[&str]| words.iter().find(|word| of.contains(&word.as_str())).cloned();
            if let (Some(word), None, None, Some(opposite)) =
                (has(&stated, said), has(&near, said), has(&stated, found), has(&nearest, found))
            {
                return Some(Contrast::Opposite { said: word, found: opposite });
            }
        }
    }
    if denies(&stated) != denies(&nearest) {
        return Some(Contrast::Negation);
    }
    swapped(&stated, &nearest).map(|by| Contrast::Swapped { by })
}

/// The word whose sides are swapped, or the pair of opposites that comes in another order.
fn swapped(stated: &[String], nearest: &[String]) -> Option<String> {
    for sided in SIDED {
        let place = |words: &[String]| words.iter().position(|word| word == sided);
        let (Some(of_stated), Some(of_nearest)) = (place(stated), place(nearest)) else { continue };
        let (before, after) = (&stated[..of_stated], &stated[of_stated + 1..]);
        let (first, last) = (&nearest[..of_nearest], &nearest[of_nearest + 1..]);
        let straight = common(before, first) + common(after, last);
        if common(before, last) + common(after, first) > straight {
            return Some(sided.to_owned());
        }
    }
    OPPOSITES.iter().find_map(|(one, other)| {
        let place = |words: &[String], of: &[&str]| words.iter().position(|word| of.contains(&word.as_str()));
        let order = |words: &[String]| Some(place(words, one)? < place(words, other)?);
        (order(stated)? != order(nearest)?).then(|| one[0].to_owned())
    })
}

/// How many long words of one are in the other.
fn common(one: &[String], other: &[String]) -> usize {
    let is_long = |word: &&String| word.chars().count() > 3 && !is_function_word(word);
    one.iter().filter(is_long).filter(|word| other.contains(word)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_negation_on_one_side_is_a_contrast() {
        let says = "Parcels leave on weekdays.";
        assert_eq!(contrast("Parcels do not leave on weekdays.", says, says), Some(Contrast::Negation));
        assert_eq!(contrast("Parcels leave on weekdays.", says, says), None);
        let denies = "Parcels never leave on Sundays.";
        assert_eq!(contrast("Parcels leave on Sundays.", denies, denies), Some(Contrast::Negation));
        assert_eq!(contrast("No parcels leave on Sundays.", denies, denies), None);
    }

    #[test]
    fn swapped_sides_are_a_contrast() {
        let passage = "A release is slower than a debug build.";
        let swapped = Contrast::Swapped { by: "than".to_owned() };
        assert_eq!(contrast("A debug build is slower than a release.", passage, passage), Some(swapped));
        let passage = "A high priority preempts a lower one, a higher one waits.";
        let other = contrast("A higher priority preempts a lower one.", passage, passage);
        assert_eq!(other, Some(Contrast::Swapped { by: "higher".to_owned() }));
    }

    #[test]
    fn an_opposite_is_a_contrast() {
        let passage = "The daemon stops after the last task.";
        let expected = Contrast::Opposite { said: "before".to_owned(), found: "after".to_owned() };
        assert_eq!(contrast("The daemon stops before the last task.", passage, passage), Some(expected));
        assert_eq!(contrast("It stops after the last task.", passage, passage), None);
    }
}
