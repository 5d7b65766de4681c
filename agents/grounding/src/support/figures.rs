//! Numbers and their units.

use std::collections::BTreeSet;

/// A number with the unit that follows it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Figure {
    /// Its digits without separators of thousands, the point as `.`.
    number: String,
    unit: Option<Unit>,
    /// As it is written.
    shown: String,
}

/// Units that are told apart. Others are words like any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Unit {
    Millisecond,
    Second,
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Year,
    Byte,
    Kilobyte,
    Megabyte,
    Gigabyte,
    Percent,
    Token,
}

/// The numbers of a text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Figures {
    all: BTreeSet<Figure>,
}

impl Figures {
    pub(super) fn of(text: &str) -> Self {
        let mut all = BTreeSet::new();
        let mut words = words(text).peekable();
        while let Some(word) = words.next() {
            let (number, glued) = match split_number(word) {
                Some((number, rest)) => (number, Some(rest).filter(|rest| !rest.is_empty())),
                None => match spelled(word) {
                    Some(number) => (number.to_owned(), None),
                    None => continue,
                },
            };
            let next = words.peek().copied();
            let unit = glued.map_or_else(|| next.and_then(unit), unit);
            let shown = match (glued, next.filter(|next| self::unit(next).is_some())) {
                (None, Some(next)) => format!("{word} {next}"),
                _ => word.to_owned(),
            };
            all.insert(Figure { number, unit, shown });
        }
        Self { all }
    }

    /// A number of these that the others do not have, or have with other units alone.
    pub(super) fn missing_in(&self, others: &Self) -> Option<String> {
        let has = |figure: &Figure| {
            others.all.iter().any(|other| {
                other.number == figure.number
                    && (figure.unit.is_none() || other.unit.is_none() || other.unit == figure.unit)
            })
        };
        // A number in words may be no figure: `one of them`, `two` for a pair.
        let is_stated =
            |figure: &&Figure| figure.shown.starts_with(|c: char| c.is_ascii_digit()) || figure.unit.is_some();
        self.all.iter().filter(is_stated).find(|figure| !has(figure)).map(|figure| figure.shown.clone())
    }
}

/// Words and numbers, with the signs that belong to numbers.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c.is_whitespace() || "()[]{}<>\"`*=/|".contains(c) || c == '\u{2013}' || c == '\u{2014}')
        .map(|word| word.trim_matches(|c: char| !c.is_alphanumeric() && c != '%'))
        .filter(|word| !word.is_empty())
}

/// The number at the beginning of a word, and what is glued to it.
fn split_number(word: &str) -> Option<(String, &str)> {
    if !word.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let end = word.find(|c: char| !c.is_ascii_digit() && c != ',' && c != '.' && c != '\u{a0}').unwrap_or(word.len());
    let (digits, rest) = word.split_at(end);
    let digits = digits.trim_end_matches([',', '.']);
    Some((canonical(digits), rest.trim_start_matches('-')))
}

/// Without separators of thousands, and without zeros behind the point.
fn canonical(digits: &str) -> String {
    let is_thousands = |separator: char| {
        let mut groups = digits.split(separator);
        let first = groups.next().unwrap_or_default();
        digits.contains(separator) && (1..=3).contains(&first.len()) && groups.all(|group| group.len() == 3)
    };
    let plain = match () {
        () if is_thousands(',') => digits.replace(',', ""),
        () => digits.replace(',', "."),
    };
    match plain.contains('.') {
        true => plain.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => plain,
    }
}

/// The number that a word spells.
fn spelled(word: &str) -> Option<&'static str> {
    Some(match word.to_lowercase().as_str() {
        "one" | "один" | "одна" | "одну" | "eins" => "1",
        "two" | "two-thirds" | "два" | "две" | "двух" | "zwei" | "twice" | "both" => "2",
        "three" | "три" | "трёх" | "трех" | "drei" => "3",
        "four" | "четыре" | "четырёх" | "четырех" | "vier" => "4",
        "five" | "пять" | "пяти" | "fünf" => "5",
        "six" | "шесть" | "шести" | "sechs" => "6",
        "seven" | "семь" | "семи" | "sieben" => "7",
        "eight" | "восемь" | "восьми" | "acht" => "8",
        "nine" | "девять" | "девяти" | "neun" => "9",
        "ten" | "десять" | "десяти" | "zehn" => "10",
        "eleven" | "одиннадцать" | "elf" => "11",
        "twelve" | "двенадцать" | "zwölf" => "12",
        "thirteen" | "тринадцать" => "13",
        "sixteen" | "шестнадцать" => "16",
        "eighteen" | "восемнадцать" => "18",
        "seventy" | "семьдесят" => "70",
        "eighty" | "восемьдесят" => "80",
        "fourteen" | "четырнадцать" | "vierzehn" => "14",
        "fifteen" | "пятнадцать" | "пятнадцати" | "fünfzehn" => "15",
        "twenty" | "двадцать" | "двадцати" | "zwanzig" => "20",
        "thirty" | "тридцать" | "тридцати" | "dreißig" => "30",
        "forty" | "сорок" | "сорока" | "vierzig" => "40",
        "fifty" | "пятьдесят" | "пятидесяти" | "fünfzig" => "50",
        "sixty" | "шестьдесят" | "шестидесяти" | "sechzig" => "60",
        "ninety" | "девяносто" | "neunzig" => "90",
        "hundred" | "сто" | "ста" | "hundert" => "100",
        "thousand" | "тысяча" | "тысячи" | "tausend" => "1000",
        "million" | "миллион" => "1000000",
        _ => return None,
    })
}

fn unit(word: &str) -> Option<Unit> {
    // Case tells a byte from a bit, and nothing else here.
    Some(match word {
        "B" => Unit::Byte,
        "KB" | "KiB" | "kB" => Unit::Kilobyte,
        "MB" | "MiB" => Unit::Megabyte,
        "GB" | "GiB" => Unit::Gigabyte,
        "%" => Unit::Percent,
        _ => match word.to_lowercase().as_str() {
            "ms" | "millisecond" | "milliseconds" | "миллисекунд" | "мс" => Unit::Millisecond,
            "s" | "second" | "seconds" | "секунд" | "секунды" | "секунда" | "с" | "sekunden" => {
                Unit::Second
            }
            "m" | "min" | "minute" | "minutes" | "минут" | "минуты" | "минуту" | "minuten" => {
                Unit::Minute
            }
            "h" | "hour" | "hours" | "час" | "часа" | "часов" | "stunden" => Unit::Hour,
            "d" | "day" | "days" | "день" | "дня" | "дней" | "tage" | "tagen" => Unit::Day,
            "week" | "weeks" | "недели" | "недель" | "неделю" | "wochen" => Unit::Week,
            "month" | "months" | "месяц" | "месяца" | "месяцев" | "monate" => Unit::Month,
            "year" | "years" | "год" | "года" | "лет" | "jahre" => Unit::Year,
            "byte" | "bytes" | "байт" => Unit::Byte,
            "percent" | "процент" | "процента" | "процентов" | "prozent" => Unit::Percent,
            "token" | "tokens" => Unit::Token,
            _ => return None,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing(stated: &str, passage: &str) -> Option<String> {
        Figures::of(stated).missing_in(&Figures::of(passage))
    }

    #[test]
    fn numbers_are_those_of_the_passage_in_any_spelling() {
        let passage = "At most 1,000 tasks, 30 days, 2.50 s, 64KiB, four times and 50 %.";
        for stated in [
            "1000 tasks",
            "thirty days",
            "30 days",
            "2.5 seconds",
            "64 KiB",
            "4 times",
            "50%",
            "50 percent",
            "one of them",
        ] {
            assert_eq!(missing(stated, passage), None, "{stated}");
        }
        for (stated, number) in [
            ("100 tasks", "100"),
            ("30 minutes", "30 minutes"),
            ("2.5 ms", "2.5 ms"),
            ("64 MiB", "64 MiB"),
            ("five days", "five days"),
        ] {
            assert_eq!(missing(stated, passage).as_deref(), Some(number), "{stated}");
        }
        assert_eq!(missing("через пять дней", "в течение 5 дней"), None);
    }
}
