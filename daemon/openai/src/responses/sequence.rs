//! The events of a streamed response, of which a whole one is the last.

use artel_proto::v1;
use serde_json::{Value, json};

use super::fault::code_of;
use super::object::{ResponseHead, ResponseState};
use super::output::{ItemContent, ItemStatus, OutputItem};
use crate::api_error::ApiError;

/// Where a response stands: its items as far as they are written, and the number of the next event.
///
/// An item is open from its first part until another item begins or the answer ends; at most the last one is open.
pub(super) struct EventSequence {
    head: ResponseHead,
    items: Vec<OutputItem>,
    /// The numbers of the model's calls, and where their items are.
    calls: Vec<(u32, usize)>,
    next_number: u64,
}

impl EventSequence {
    pub(super) fn new(head: ResponseHead) -> Self {
        Self { head, items: Vec::new(), calls: Vec::new(), next_number: 0 }
    }

    /// The events before all others.
    pub(super) fn begin(&mut self) -> Vec<Value> {
        let response = self.head.object(&ResponseState::InProgress, &[]);
        let created = self.event("response.created", json!({"response": response}));
        vec![created, self.in_progress()]
    }

    /// Says that the response goes on: data, which clients see that count silence.
    pub(super) fn in_progress(&mut self) -> Value {
        let response = self.head.object(&ResponseState::InProgress, &[]);
        self.event("response.in_progress", json!({"response": response}))
    }

    pub(super) fn reasoning(&mut self, more: &str) -> Vec<Value> {
        let mut events = Vec::new();
        let is_new = !matches!(self.open_item(), Some(ItemContent::Reasoning { .. }));
        if is_new {
            self.begin_item(ItemContent::Reasoning { text: String::new() }, &mut events);
        }
        let (item, index) = self.last_place();
        if is_new {
            let part = json!({"type": "summary_text", "text": ""});
            let data = json!({"item_id": item, "output_index": index, "summary_index": 0, "part": part});
            events.push(self.event("response.reasoning_summary_part.added", data));
        }
        let data = json!({"item_id": item, "output_index": index, "summary_index": 0, "delta": more});
        events.push(self.event("response.reasoning_summary_text.delta", data));
        if let Some(ItemContent::Reasoning { text }) = self.items.last_mut().map(|item| &mut item.content) {
            text.push_str(more);
        }
        events
    }

    /// `probabilities` are those of the tokens that begin in `more`, as clients read them.
    pub(super) fn text(&mut self, more: &str, probabilities: Vec<Value>) -> Vec<Value> {
        let mut events = Vec::new();
        if !matches!(self.open_item(), Some(ItemContent::Message { .. })) {
            self.begin_message(&mut events);
        }
        let (item, index) = self.last_place();
        let data = json!({
            "item_id": item, "output_index": index, "content_index": 0, "delta": more, "logprobs": probabilities,
        });
        events.push(self.event("response.output_text.delta", data));
        if let Some(ItemContent::Message { text, logprobs }) = self.items.last_mut().map(|item| &mut item.content) {
            text.push_str(more);
            logprobs.extend(probabilities);
        }
        events
    }

    pub(super) fn call_begins(&mut self, call: u32, call_id: String, name: String) -> Vec<Value> {
        let mut events = Vec::new();
        self.begin_item(ItemContent::Call { call_id, name, arguments: String::new() }, &mut events);
        self.calls.push((call, self.items.len() - 1));
        events
    }

    pub(super) fn call_arguments(&mut self, call: u32, more: &str) -> Vec<Value> {
        let found = self.calls.iter().rev().find(|(number, _)| *number == call).map(|(_, index)| *index);
        let Some((index, item)) = found.and_then(|index| Some((index, self.items.get_mut(index)?))) else {
            return Vec::new();
        };
        if let ItemContent::Call { arguments, .. } = &mut item.content {
            arguments.push_str(more);
        }
        let data = json!({"item_id": item.id, "output_index": index, "delta": more});
        vec![self.event("response.function_call_arguments.delta", data)]
    }

    /// What the answer cites, before its end.
    pub(super) fn cite(&mut self, citations: Vec<v1::Citation>) {
        self.head.citations = citations;
    }

    /// The answer is whole, or cut off for its length.
    pub(super) fn finish(&mut self, usage: &v1::Usage, is_cut_off: bool) -> Vec<Value> {
        let mut events = Vec::new();
        if self.items.is_empty() {
            // Clients expect a message, also an empty one.
            self.begin_message(&mut events);
        }
        self.end_item(if is_cut_off { ItemStatus::Incomplete } else { ItemStatus::Completed }, &mut events);
        let (kind, state) = match is_cut_off {
            true => ("response.incomplete", ResponseState::CutOff(usage)),
            false => ("response.completed", ResponseState::Completed(usage)),
        };
        let response = self.head.object(&state, &self.items);
        events.push(self.event(kind, json!({"response": response})));
        events
    }

    /// The answer fails after its first events were sent.
    pub(super) fn fail(&mut self, error: &ApiError) -> Vec<Value> {
        let mut events = Vec::new();
        let ApiError { kind, param, message, .. } = error;
        let code = code_of(error);
        // The reference has the fields at the top, and OpenAI sends them under `error`, where its own clients look.
        let data = json!({
            "code": code, "message": message, "param": param,
            "error": {"type": kind, "code": code, "message": message, "param": param},
        });
        events.push(self.event("error", data));
        if let Some(open) = self.items.last_mut() {
            open.status = ItemStatus::Incomplete;
        }
        let response = self.head.object(&ResponseState::Failed(error), &self.items);
        events.push(self.event("response.failed", json!({"response": response})));
        events
    }

    fn event(&mut self, kind: &str, data: Value) -> Value {
        let mut event = json!({"type": kind, "sequence_number": self.next_number});
        self.next_number += 1;
        if let (Some(event), Value::Object(data)) = (event.as_object_mut(), data) {
            event.extend(data);
        }
        event
    }

    fn open_item(&self) -> Option<&ItemContent> {
        self.items.last().filter(|item| item.status == ItemStatus::InProgress).map(|item| &item.content)
    }

    /// The id of the last item, and its index.
    fn last_place(&self) -> (String, usize) {
        let id = self.items.last().map(|item| item.id.clone()).unwrap_or_default();
        (id, self.items.len().saturating_sub(1))
    }

    fn begin_item(&mut self, content: ItemContent, events: &mut Vec<Value>) {
        self.end_item(ItemStatus::Completed, events);
        let kind = content.kind();
        let number = self.items.iter().filter(|item| item.content.kind() == kind).count();
        let item = OutputItem::begin(&self.head.notes.task, number, content);
        let data = json!({"output_index": self.items.len(), "item": item.to_json()});
        self.items.push(item);
        events.push(self.event("response.output_item.added", data));
    }

    fn begin_message(&mut self, events: &mut Vec<Value>) {
        self.begin_item(ItemContent::Message { text: String::new(), logprobs: Vec::new() }, events);
        let (item, index) = self.last_place();
        let part = self.items.last().and_then(OutputItem::part);
        let data = json!({"item_id": item, "output_index": index, "content_index": 0, "part": part});
        events.push(self.event("response.content_part.added", data));
    }

    /// Ends the open item, if there is one.
    fn end_item(&mut self, status: ItemStatus, events: &mut Vec<Value>) {
        let Some(item) = self.items.last_mut().filter(|item| item.status == ItemStatus::InProgress) else { return };
        // What began as a call and was none has no whole arguments.
        item.status = if item.content.is_whole() { status } else { ItemStatus::Incomplete };
        let (id, part, whole) = (item.id.clone(), item.part(), item.to_json());
        let index = self.items.len() - 1;
        let place = json!({"item_id": id, "output_index": index});
        let with = |more: Value| merged(place.clone(), more);
        let ended = match self.items.last().map(|item| &item.content) {
            Some(ItemContent::Reasoning { text }) => vec![
                ("response.reasoning_summary_text.done", with(json!({"summary_index": 0, "text": text}))),
                ("response.reasoning_summary_part.done", with(json!({"summary_index": 0, "part": part}))),
            ],
            Some(ItemContent::Message { text, logprobs }) => vec![
                ("response.output_text.done", with(json!({"content_index": 0, "text": text, "logprobs": logprobs}))),
                ("response.content_part.done", with(json!({"content_index": 0, "part": part}))),
            ],
            Some(ItemContent::Call { name, arguments, .. }) => {
                vec![("response.function_call_arguments.done", with(json!({"name": name, "arguments": arguments})))]
            }
            None => Vec::new(),
        };
        for (kind, data) in ended {
            events.push(self.event(kind, data));
        }
        events.push(self.event("response.output_item.done", json!({"output_index": index, "item": whole})));
    }
}

fn merged(mut object: Value, more: Value) -> Value {
    if let (Some(object), Value::Object(more)) = (object.as_object_mut(), more) {
        object.extend(more);
    }
    object
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Map;

    use super::*;
    use crate::answer_json::AnswerNotes;

    fn sequence() -> EventSequence {
        EventSequence::new(ResponseHead {
            created: 1_700_000_000,
            model: "critic".to_owned(),
            echo: Map::from_iter([("tools".to_owned(), json!([]))]),
            notes: AnswerNotes { task: "t-1".to_owned(), not_taken: vec!["top_p"] },
            citations: Vec::new(),
        })
    }

    fn usage() -> v1::Usage {
        v1::Usage { prompt_tokens: 10, cached_tokens: 4, output_tokens: 6, reasoning_tokens: 2, ..v1::Usage::default() }
    }

    fn types(events: &[Value]) -> Vec<&str> {
        events.iter().map(|event| event["type"].as_str().unwrap()).collect()
    }

    #[test]
    fn an_answer_with_reasoning_text_and_a_call_has_all_events_in_order() {
        let mut sequence = sequence();
        let mut events = sequence.begin();
        events.extend(sequence.reasoning("Hm"));
        events.extend(sequence.reasoning("."));
        events.extend(sequence.text("It", Vec::new()));
        events.push(sequence.in_progress());
        events.extend(sequence.text(" is", vec![json!({"token": " is"})]));
        events.extend(sequence.call_begins(0, "c1".to_owned(), "add".to_owned()));
        events.extend(sequence.call_arguments(0, "{\"a\""));
        events.extend(sequence.call_arguments(0, ":1}"));
        events.extend(sequence.finish(&usage(), false));
        let expected = [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.reasoning_summary_part.added",
            "response.reasoning_summary_text.delta",
            "response.reasoning_summary_text.delta",
            "response.reasoning_summary_text.done",
            "response.reasoning_summary_part.done",
            "response.output_item.done",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.in_progress",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.output_item.added",
            "response.function_call_arguments.delta",
            "response.function_call_arguments.delta",
            "response.function_call_arguments.done",
            "response.output_item.done",
            "response.completed",
        ];
        assert_eq!(types(&events), expected);
        let numbers: Vec<u64> = events.iter().map(|event| event["sequence_number"].as_u64().unwrap()).collect();
        assert_eq!(numbers, (0..23).collect::<Vec<u64>>());
        let places: Vec<u64> = events[2..22].iter().filter_map(|event| event["output_index"].as_u64()).collect();
        assert_eq!(places, [vec![0; 7], vec![1; 7], vec![2; 5]].concat());
        let response = &events[22]["response"];
        assert_eq!(response["id"], "resp_t-1");
        assert_eq!(response["status"], "completed");
        let output = json!([
            {"id": "rs_t-1_0", "type": "reasoning", "status": "completed", "summary": [{"type": "summary_text", "text": "Hm."}]},
            {"id": "msg_t-1_0", "type": "message", "status": "completed", "role": "assistant", "content": [
                {"type": "output_text", "text": "It is", "annotations": [], "logprobs": [{"token": " is"}]},
            ]},
            {"id": "fc_t-1_0", "type": "function_call", "status": "completed", "call_id": "c1", "name": "add", "arguments": "{\"a\":1}"},
        ]);
        assert_eq!(response["output"], output);
        let usage = json!({
            "input_tokens": 10, "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 0}, "output_tokens": 6,
            "output_tokens_details": {"reasoning_tokens": 2}, "total_tokens": 16,
        });
        assert_eq!((&response["usage"], &response["artel"]["not_taken"]), (&usage, &json!(["top_p"])));
        assert_eq!(events[21]["item"], output[2], "an item is complete as it stands in the output");
        assert_eq!(events[17]["item"]["arguments"], "", "and empty when it begins");
    }

    #[test]
    fn an_answer_that_is_cut_off_is_incomplete() {
        let mut sequence = sequence();
        sequence.text("It", Vec::new());
        let events = sequence.finish(&usage(), true);
        let response = &events.last().unwrap()["response"];
        assert_eq!((types(&events)[3], &response["status"]), ("response.incomplete", &json!("incomplete")));
        assert_eq!(response["incomplete_details"], json!({"reason": "max_output_tokens"}));
        assert_eq!(response["output"][0]["status"], "incomplete");
    }

    #[test]
    fn an_empty_answer_is_an_empty_message() {
        let events = sequence().finish(&usage(), false);
        let output = &events.last().unwrap()["response"]["output"];
        assert_eq!((&output[0]["type"], &output[0]["content"][0]["text"]), (&json!("message"), &json!("")));
    }

    #[test]
    fn several_calls_are_items_of_their_own() {
        let mut sequence = sequence();
        for call in 0..3 {
            sequence.call_begins(call, format!("c{call}"), "add".to_owned());
            sequence.call_arguments(call, "{}");
        }
        let events = sequence.finish(&usage(), false);
        let output = events.last().unwrap()["response"]["output"].as_array().unwrap();
        let calls: Vec<_> = output.iter().map(|item| (item["id"].as_str(), item["call_id"].as_str())).collect();
        let expected = [("fc_t-1_0", "c0"), ("fc_t-1_1", "c1"), ("fc_t-1_2", "c2")];
        assert_eq!(calls, expected.map(|(id, call)| (Some(id), Some(call))));
    }

    #[test]
    fn a_failure_is_told_twice_for_clients_that_read_one_or_the_other() {
        let mut sequence = sequence();
        sequence.text("It", Vec::new());
        let error = ApiError::invalid("input", "is too long").with_code("context_length_exceeded");
        let events = sequence.fail(&error);
        assert_eq!(types(&events), ["error", "response.failed"]);
        assert_eq!(events[0]["message"], events[0]["error"]["message"]);
        assert_eq!((&events[0]["code"], &events[0]["param"]), (&json!("context_length_exceeded"), &json!("input")));
        let response = &events[1]["response"];
        assert_eq!(
            (&response["error"]["code"], &response["status"]),
            (&json!("context_length_exceeded"), &json!("failed"))
        );
        assert_eq!(response["output"][0]["content"][0]["text"], "It");
    }

    /// What a model may write next.
    #[derive(Debug, Clone)]
    enum Written {
        Reasoning(String),
        Text(String),
        Call,
        Arguments(String),
    }

    fn written() -> impl Strategy<Value = Vec<Written>> {
        let text = "[a-zäß{}\"\\n]{1,8}";
        let next = prop_oneof![
            text.prop_map(Written::Reasoning),
            text.prop_map(Written::Text),
            Just(Written::Call),
            text.prop_map(Written::Arguments),
        ];
        proptest::collection::vec(next, 0..24)
    }

    proptest! {
        #[test]
        fn events_add_up_to_the_last_response(parts in written(), is_cut_off in any::<bool>()) {
            let mut sequence = sequence();
            let mut events = sequence.begin();
            let mut calls = 0;
            for part in parts {
                events.extend(match part {
                    Written::Reasoning(text) => sequence.reasoning(&text),
                    Written::Text(text) => sequence.text(&text, Vec::new()),
                    Written::Call => {
                        calls += 1;
                        sequence.call_begins(calls, format!("c{calls}"), "add".to_owned())
                    }
                    Written::Arguments(text) => sequence.call_arguments(calls, &text),
                });
            }
            events.extend(sequence.finish(&usage(), is_cut_off));
            let numbers = events.iter().map(|event| event["sequence_number"].as_u64().unwrap());
            prop_assert!(numbers.eq(0..events.len() as u64));
            let last = events.pop().unwrap();
            for (index, item) in last["response"]["output"].as_array().unwrap().iter().enumerate() {
                let of_item: Vec<&Value> = events.iter().filter(|event| event["output_index"] == index).collect();
                let count = |kind: &str| of_item.iter().filter(|event| event["type"] == kind).count();
                prop_assert_eq!((count("response.output_item.added"), count("response.output_item.done")), (1, 1));
                prop_assert_eq!(&of_item[0]["type"], "response.output_item.added");
                let deltas: String = of_item.iter().filter_map(|event| event["delta"].as_str()).collect();
                let whole = match item["type"].as_str().unwrap() {
                    "reasoning" => &item["summary"][0]["text"],
                    "message" => &item["content"][0]["text"],
                    _ => &item["arguments"],
                };
                prop_assert_eq!(whole, &deltas);
            }
        }
    }
}
