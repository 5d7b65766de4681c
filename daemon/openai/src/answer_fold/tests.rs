//! The parts that are sent add up to the result, whatever was cut, lost or begun again.

use artel_proto::v1;
use artel_proto::v1::event::Kind as K;
use artel_proto::v1::tool_call_delta::Part;
use proptest::prelude::*;

use super::{AnswerFold, AnsweringNodes};
use crate::answer::{AnswerFinish, AnswerPart};
use crate::api_error::ApiError;
use crate::run_options::EventsMode;

const NODE: &str = "answer";

fn fold() -> AnswerFold {
    AnswerFold::new("t".to_owned(), AnsweringNodes::Every, EventsMode::Off, true)
}

fn event(kind: K) -> v1::Event {
    v1::Event { kind: Some(kind), ..v1::Event::default() }
}

fn token(step: &str, offset: usize, text: &str, logprobs: Vec<v1::TokenLogprob>) -> K {
    let (step_id, node, text) = (step.to_owned(), NODE.to_owned(), text.to_owned());
    K::Token(v1::Token { step_id, node, role: String::new(), text, offset: offset as u64, logprobs })
}

fn thought(step: &str, offset: usize, text: &str) -> K {
    let (step_id, node, text) = (step.to_owned(), NODE.to_owned(), text.to_owned());
    K::Reasoning(v1::Reasoning { step_id, node, role: String::new(), text, offset: offset as u64 })
}

fn part(step: &str, index: u32, part: Part) -> K {
    let (step_id, node) = (step.to_owned(), NODE.to_owned());
    K::ToolCallDelta(v1::ToolCallDelta { step_id, node, role: String::new(), index, part: Some(part) })
}

fn begin(step: &str, index: u32, name: &str) -> K {
    part(step, index, Part::Begin(v1::ToolCallBegin { id: format!("{step}-{index}"), name: name.to_owned() }))
}

fn completed(output: v1::Output) -> K {
    K::Completed(v1::Completed { output: Some(output), fallback_cause: None })
}

/// What a client has put together.
#[derive(Debug, Default, PartialEq)]
struct ClientCopy {
    text: String,
    reasoning: String,
    logprobs: Vec<v1::TokenLogprob>,
    /// The name and the arguments of each call.
    calls: Vec<(String, String)>,
    finish: Option<AnswerFinish>,
    error: Option<ApiError>,
}

fn receive(fold: &mut AnswerFold, kinds: impl IntoIterator<Item = K>) -> ClientCopy {
    let mut received = ClientCopy::default();
    for part in kinds.into_iter().flat_map(|kind| fold.push(event(kind))) {
        assert!(received.finish.is_none() && received.error.is_none(), "nothing follows the end");
        match part {
            AnswerPart::Step(_) | AnswerPart::StepThought(_) => {}
            AnswerPart::Reasoning(text) => received.reasoning += &text,
            AnswerPart::Text { text, logprobs } => {
                received.text += &text;
                received.logprobs.extend(logprobs);
            }
            AnswerPart::CallBegin { index, name, .. } => {
                assert_eq!(index as usize, received.calls.len(), "indices have no gaps");
                received.calls.push((name, String::new()));
            }
            AnswerPart::CallArguments { index, text } => received.calls[index as usize].1 += &text,
            AnswerPart::Finished(finished) => received.finish = Some(finished.finish),
            AnswerPart::Failed(error) => received.error = Some(error),
        }
    }
    received
}

/// A text in pieces, cut after so many characters each.
fn pieces<'a>(text: &'a str, cuts: &[usize]) -> Vec<(usize, &'a str)> {
    let ends: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
    let (mut pieces, mut at, mut cuts) = (Vec::new(), 0, cuts.iter().cycle());
    while at + 1 < ends.len() {
        let next = (at + cuts.next().copied().unwrap_or(1).max(1)).min(ends.len() - 1);
        pieces.push((ends[at], &text[ends[at]..ends[next]]));
        at = next;
    }
    pieces
}

fn logprob(byte: u8) -> v1::TokenLogprob {
    v1::TokenLogprob { bytes: vec![byte], logprob: f32::from(byte), forced: false, top: Vec::new() }
}

/// An attempt at an answer: how it is cut, which items are lost, and after how many of them it ends.
#[derive(Debug, Clone)]
struct Attempt {
    cuts: Vec<usize>,
    is_lost: Vec<bool>,
    length: usize,
}

fn attempt() -> impl Strategy<Value = Attempt> {
    let is_lost = prop::collection::vec(prop::bool::weighted(0.1), 1..20);
    (prop::collection::vec(1usize..6, 1..8), is_lost, 0usize..60).prop_map(|(cuts, is_lost, length)| Attempt {
        cuts,
        is_lost,
        length,
    })
}

/// The items of attempts at the same answer.
fn attempts(reasoning: &str, text: &str, attempts: &[Attempt]) -> Vec<K> {
    let mut kinds = Vec::new();
    for (number, attempt) in attempts.iter().enumerate() {
        let step = format!("s{number}");
        let thoughts = pieces(reasoning, &attempt.cuts);
        let items = thoughts.into_iter().map(|(offset, text)| thought(&step, offset, text));
        let tokens = pieces(text, &attempt.cuts).into_iter().map(|(offset, text)| {
            // A likelihood for each byte, so that they follow from the text.
            token(&step, offset, text, text.bytes().map(logprob).collect())
        });
        let lost = attempt.is_lost.iter().cycle();
        let items = items.chain(tokens).take(attempt.length).zip(lost).filter(|(_, is_lost)| !**is_lost);
        kinds.extend(items.map(|(kind, _)| kind));
    }
    kinds
}

proptest! {
    #[test]
    fn the_parts_add_up_to_the_result(
        text in "[a-zß€😀 ]{0,40}",
        reasoning in "[a-zß ]{0,20}",
        given in prop::collection::vec(attempt(), 0..4),
    ) {
        let tokens: Vec<_> = text.bytes().map(logprob).collect();
        let logprobs = Some(v1::Logprobs { tokens: tokens.clone(), truncated: false });
        let output = v1::Output { text: text.clone(), reasoning: reasoning.clone(), logprobs, ..v1::Output::default() };
        let kinds = attempts(&reasoning, &text, &given).into_iter().chain([completed(output)]);
        let received = receive(&mut fold(), kinds);
        let finish = Some(AnswerFinish::Stop);
        let expected = ClientCopy { text, reasoning, logprobs: tokens, finish, ..ClientCopy::default() };
        prop_assert_eq!(received, expected);
    }

    #[test]
    fn calls_add_up_to_the_result_or_the_answer_fails(
        arguments in prop::collection::vec("[a-z]{1,12}", 1..4),
        given in prop::collection::vec(attempt(), 0..3),
    ) {
        let mut kinds = Vec::new();
        let mut is_complete = true;
        for (number, attempt) in given.iter().enumerate() {
            let step = format!("s{number}");
            let call = |(index, text): (u32, &String)| {
                let more = pieces(text, &attempt.cuts).into_iter();
                let more = more.map(|(_, text)| part(&step, index, Part::Arguments(text.to_owned()))).collect::<Vec<_>>();
                let end = part(&step, index, Part::End(v1::ToolCallEnd {}));
                std::iter::once(begin(&step, index, "get")).chain(more).chain([end])
            };
            let items: Vec<K> = (0..).zip(&arguments).flat_map(call).take(attempt.length).collect();
            let lost = attempt.is_lost.iter().cycle();
            let kept: Vec<K> = items.iter().cloned().zip(lost).filter(|(_, is_lost)| !**is_lost).map(|(kind, _)| kind).collect();
            is_complete &= kept.len() == items.len();
            kinds.extend(kept);
        }
        let calls = arguments.iter().map(|arguments| v1::ToolCall {
            id: "id".to_owned(), name: "get".to_owned(), arguments: arguments.clone(),
        });
        let output = v1::Output { calls: calls.collect(), ..v1::Output::default() };
        kinds.push(completed(output));
        let received = receive(&mut fold(), kinds);
        let expected: Vec<_> = arguments.iter().map(|arguments| ("get".to_owned(), arguments.clone())).collect();
        match received.error {
            // The parts of a call have no offsets, so that a loss within one shows only at its end.
            Some(error) => prop_assert!(!is_complete && error.code == Some("answer_changed"), "{error:?}"),
            None => prop_assert_eq!((received.calls, received.finish), (expected, Some(AnswerFinish::Calls))),
        }
    }
}

fn text_output(text: &str) -> v1::Output {
    v1::Output { text: text.to_owned(), ..v1::Output::default() }
}

#[test]
fn an_attempt_that_writes_something_else_fails_the_answer_at_once() {
    let mut fold = fold();
    let received = receive(&mut fold, [token("s1", 0, "hello", Vec::new()), token("s2", 0, "help", Vec::new())]);
    assert_eq!((received.text.as_str(), received.error.unwrap().code), ("hello", Some("answer_changed")));
    assert!(!fold.has_stopped(), "the task goes on");
}

#[test]
fn a_result_that_is_another_text_fails_the_answer() {
    let received = receive(&mut fold(), [token("s1", 0, "hello", Vec::new()), completed(text_output("fallback"))]);
    assert_eq!(received.error.unwrap().code, Some("answer_changed"));
}

#[test]
fn another_reasoning_before_the_same_answer_is_not_sent() {
    let output = v1::Output { reasoning: "because".to_owned(), ..text_output("yes") };
    let kinds =
        [thought("s1", 0, "well"), thought("s2", 0, "because"), token("s2", 0, "yes", Vec::new()), completed(output)];
    let received = receive(&mut fold(), kinds);
    assert_eq!((received.reasoning.as_str(), received.text.as_str(), received.error), ("well", "yes", None));
}

#[test]
fn a_call_that_is_withdrawn_ends_silently_and_the_answer_is_cut() {
    let kinds = [
        begin("s1", 0, "get"),
        part("s1", 0, Part::Arguments("{\"a\"".to_owned())),
        part("s1", 0, Part::Withdrawn(v1::ToolCallWithdrawn {})),
        token("s1", 0, "<call>{\"a\"", Vec::new()),
        begin("s1", 0, "put"),
        part("s1", 0, Part::Arguments("{}".to_owned())),
        part("s1", 0, Part::End(v1::ToolCallEnd {})),
        completed(v1::Output {
            calls: vec![v1::ToolCall { id: "i".to_owned(), name: "put".to_owned(), arguments: "{}".to_owned() }],
            ..text_output("<call>{\"a\"")
        }),
    ];
    let received = receive(&mut fold(), kinds);
    let calls = [("get", "{\"a\""), ("put", "{}")].map(|(name, text)| (name.to_owned(), text.to_owned()));
    assert_eq!((received.calls.as_slice(), received.finish), (calls.as_slice(), Some(AnswerFinish::Length)));
}

#[test]
fn a_call_that_is_cut_off_ends_with_the_length() {
    let output = v1::Output { finish: Some(v1::FinishReason::Length.into()), ..text_output("") };
    let kinds = [begin("s1", 0, "get"), part("s1", 0, Part::Arguments("{".to_owned())), completed(output)];
    let received = receive(&mut fold(), kinds);
    assert_eq!((received.error, received.finish), (None, Some(AnswerFinish::Length)));
}

#[test]
fn the_tokens_of_all_steps_are_counted() {
    let step = |output_tokens| {
        let usage = Some(v1::Usage { output_tokens, ..v1::Usage::default() });
        K::StepFinished(v1::StepFinished { usage, ..v1::StepFinished::default() })
    };
    let mut fold = fold();
    [step(3), step(4)].into_iter().for_each(|kind| drop(fold.push(event(kind))));
    let Some(AnswerPart::Finished(finished)) = fold.push(event(completed(text_output("")))).pop() else { panic!() };
    assert_eq!(finished.usage.output_tokens, 7);
    assert!(fold.has_stopped());
}
