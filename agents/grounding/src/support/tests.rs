//! The check on an example, and its rates on labelled sentences.

use serde::Deserialize;

use super::*;

const PASSAGE: &str = "Parcels leave the house every weekday at four. Olga takes them to the station with the blue van. \
                       Refunds are paid within 30 days.";

fn doubts(answer: &str) -> Vec<Option<Doubt>> {
    check("When do parcels leave?", answer, &[(1, PASSAGE), (2, "The cat sleeps on the sofa.")])
        .into_iter()
        .map(|sentence| sentence.doubt)
        .collect()
}

#[test]
fn what_a_passage_says_is_supported_and_what_it_does_not_is_told() {
    assert_eq!(doubts("Parcels leave the house at four [1]. Refunds are paid in thirty days. [1]"), [None, None]);
    assert_eq!(doubts("Refunds are paid within 14 days [1]."), [Some(Doubt::Number("14 days".to_owned()))]);
    assert_eq!(doubts("Then Pavel takes parcels to the station [1]."), [Some(Doubt::Name("Pavel".to_owned()))]);
    assert_eq!(doubts("Parcels do not leave the house every weekday [1]."), [Some(Doubt::Negation)]);
    assert!(
        matches!(doubts("Parcels leave the house every weekday [2].")[..], [Some(Doubt::Words { .. })]),
        "another passage"
    );
    assert_eq!(doubts("Parcels leave the house every weekday."), [None], "one that cites nothing is looked for in all");
    assert!(matches!(
        doubts("Customers may choose another carrier for large orders [1].")[..],
        [Some(Doubt::Words { .. })]
    ));
    assert_eq!(doubts("Shall I say more? Yes."), []);
    assert_eq!(check("", "Parcels leave at four.", &[])[0].doubt, Some(Doubt::NoPassage));
}

#[test]
fn doubted_sentences_are_taken_out() {
    let answer =
        "Parcels leave the house at four [1]. Refunds are paid within 14 days [1]. Olga takes them to the station [1].";
    let checked = check("", answer, &[(1, PASSAGE)]);
    assert_eq!(
        supported_text(answer, &checked),
        "Parcels leave the house at four [1].  Olga takes them to the station [1]."
    );
}

#[derive(Deserialize)]
struct LabelledSentence {
    id: u32,
    passage: String,
    sentence: String,
    supported: bool,
    kind: String,
}

/// How many of the true sentences were blamed, and of the false ones found; with `print`, those that were told wrong.
fn rates(of: impl Fn(&LabelledSentence) -> bool, print: bool) -> (f64, f64) {
    let all = include_str!("../../../../tests/knowledge/sentences.jsonl");
    let all: Vec<LabelledSentence> = all.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (mut blamed, mut found, mut counts) = (0, 0, (0, 0));
    for labelled in all.iter().filter(|labelled| of(labelled)) {
        let checked = check("", &labelled.sentence, &[(1, &labelled.passage)]);
        let doubt = checked.iter().find_map(|sentence| sentence.doubt.clone());
        match labelled.supported {
            true => (counts.0, blamed) = (counts.0 + 1, blamed + i32::from(doubt.is_some())),
            false => (counts.1, found) = (counts.1 + 1, found + i32::from(doubt.is_some())),
        }
        if print && labelled.supported == doubt.is_some() {
            println!("{} {} {:?}: {}", labelled.id, labelled.kind, doubt, labelled.sentence);
        }
    }
    (f64::from(blamed) / f64::from(counts.0), f64::from(found) / f64::from(counts.1))
}

/// The second half was not looked at when thresholds and words were chosen.
#[test]
fn most_false_sentences_are_found_and_few_true_ones_are_blamed() {
    let fitted = rates(|labelled| labelled.id <= 100, true);
    let held_out = rates(|labelled| labelled.id > 100, false);
    for (name, (blamed, found)) in [("fitted", fitted), ("held out", held_out)] {
        println!(
            "{name}: {:.0} % of false sentences found, {:.0} % of true ones blamed",
            100.0 * found,
            100.0 * blamed
        );
    }
    for kind in ["close", "paraphrase", "number", "name", "negation", "relation", "contradiction", "invented", "mixed"]
    {
        let (blamed, found) = rates(|labelled| labelled.kind == kind, false);
        println!("{kind}: {:.0} % doubted", 100.0 * if blamed.is_nan() { found } else { blamed });
    }
    let (blamed, found) = held_out;
    assert!(found > blamed + 0.3, "{found} {blamed}");
}
