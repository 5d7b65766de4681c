//! How a node is executed: for which items, with which timeouts and retries, and how its branches join.

use std::time::Duration;

use artel_task::NodeName;
use artel_task::condition::ListExpression;
use artel_task::graph::{ForEach, Join, MAX_ITEMS, ReplaySafety, RetryPolicy, StepPolicy};
use artel_yaml::{YamlNode, YamlValue, shown};

use super::decoder::GraphDecoder;
use super::edge::expression;
use crate::decode::{MapReader, boolean, choice, duration, integer, wrong};
use crate::keys;

/// The default of `parallel`: enough to fill a batch of the engine.
const DEFAULT_PARALLEL_ITEMS: u32 = 8;
/// The most items that run at once: the limit of a model's `sequences`.
const MAX_PARALLEL_ITEMS: u32 = 256;
/// The default of `at_most` of a `for_each`.
const DEFAULT_MAX_ITEMS: u32 = 1000;
/// The longest `timeout` and `idle`.
const MAX_TIMEOUT: Duration = Duration::from_secs(86_400);
/// The default delay before the second attempt.
const RETRY_DELAY: Duration = Duration::from_millis(500);
/// The default of the longest delay.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(30);

/// The timeouts and retries of a node, and whether it may be run twice or answered from the cache.
#[derive(Default)]
pub(super) struct ExecutionPolicy {
    pub(super) effort: StepPolicy,
    pub(super) effect: ReplaySafety,
    pub(super) cache: bool,
}

impl GraphDecoder<'_, '_, '_> {
    pub(super) fn execution_policy(&mut self, node: &NodeName, f: &mut MapReader<'_>) -> ExecutionPolicy {
        let kind = ["ask", "graph", "router"].into_iter().find(|kind| f.entry(kind).is_some());
        let refused: &[&str] = match kind {
            Some("ask") => &["retries", "timeout", "idle", "effect", "cache"],
            Some("graph" | "router") => &["idle", "effect", "cache"],
            _ => &[],
        };
        for key in refused {
            if let Some(entry) = f.entry(key) {
                let kind = kind.unwrap_or_default();
                let hint = match (kind, *key) {
                    ("ask", "timeout" | "idle") => "limit the wait for an answer with `deadline` in `ask`".to_owned(),
                    ("graph", _) => "set it at the nodes of that graph".to_owned(),
                    _ => format!("remove it from `{node}`"),
                };
                self.report.error_with_hint(
                    entry.key_span,
                    format!("`{key}` has no effect on a node with `{kind}`"),
                    hint,
                );
            }
        }
        let range = Duration::from_millis(100)..=MAX_TIMEOUT;
        let timeout = f.get("timeout").and_then(|n| duration(n, "`timeout`", range.clone(), self.report));
        let idle = f.get("idle").and_then(|n| duration(n, "`idle`", range, self.report));
        let retries = f.get("retries");
        let (span, retries) = (retries.map(|n| n.span), retries.and_then(|n| self.retries(n)));
        let effects = [
            ("pure", ReplaySafety::Pure),
            ("idempotent", ReplaySafety::Idempotent),
            ("at_most_once", ReplaySafety::AtMostOnce),
        ];
        let effect = f.get("effect").and_then(|n| choice(n, "`effect`", &effects, self.report)).unwrap_or_default();
        if let (ReplaySafety::AtMostOnce, Some(span), Some(RetryPolicy { count: 1.., .. })) = (effect, span, retries) {
            self.report.error(span, "a node with `effect: at_most_once` is never retried; remove `retries`");
        }
        let cache = f.get("cache");
        let is_cached = cache.and_then(|n| boolean(n, "`cache`", self.report)).unwrap_or(false);
        if let Some(n) = cache.filter(|_| is_cached && effect != ReplaySafety::Pure) {
            self.report.error(n.span, "only a node with `effect: pure` can be answered from the cache");
        }
        ExecutionPolicy { effort: StepPolicy { retries, timeout, idle_timeout: idle }, effect, cache: is_cached }
    }

    fn retries(&mut self, n: &YamlNode) -> Option<RetryPolicy> {
        const COUNT: std::ops::RangeInclusive<u32> = 0..=10;
        let with_default_delays =
            |at_most| RetryPolicy { count: at_most, delay: RETRY_DELAY, max_delay: MAX_RETRY_DELAY };
        if !matches!(n.value, YamlValue::Map(_)) {
            return integer(n, "`retries`", COUNT, self.report).map(with_default_delays);
        }
        let mut f = MapReader::open(n, "`retries`", &keys::RETRIES, self.report)?.at(n.span);
        let count = f.need("count", self.report).and_then(|n| integer(n, "`count`", COUNT, self.report));
        let range = Duration::from_millis(10)..=Duration::from_secs(3600);
        let delay = f.get("delay").and_then(|n| duration(n, "`delay`", range.clone(), self.report));
        let max_delay = f.get("max_delay").and_then(|n| duration(n, "`max_delay`", range, self.report));
        f.finish(&[], self.report);
        let delay = delay.unwrap_or(RETRY_DELAY);
        let max_delay = max_delay.unwrap_or(MAX_RETRY_DELAY.max(delay));
        if max_delay < delay {
            self.report.error(n.span, "`max_delay` is shorter than `delay`");
        }
        Some(RetryPolicy { count: count?, delay, max_delay })
    }

    pub(super) fn each(&mut self, given: &YamlNode) -> Option<ForEach> {
        if !matches!(given.value, YamlValue::Map(_)) {
            let list = self.list(given)?;
            return Some(ForEach { list, parallel: DEFAULT_PARALLEL_ITEMS, max_items: DEFAULT_MAX_ITEMS });
        }
        let mut f = MapReader::open(given, "`for_each`", &keys::FOR_EACH, self.report)?.at(given.span);
        let list = f.need("list", self.report).map(|n| self.list(n));
        let parallel = f.get("parallel").and_then(|n| integer(n, "`parallel`", 1..=MAX_PARALLEL_ITEMS, self.report));
        let at_most = f.get("at_most").and_then(|n| integer(n, "`at_most`", 1..=MAX_ITEMS, self.report));
        f.finish(&[], self.report);
        let (parallel, max_items) = (parallel.unwrap_or(DEFAULT_PARALLEL_ITEMS), at_most.unwrap_or(DEFAULT_MAX_ITEMS));
        Some(ForEach { list: list??, parallel, max_items })
    }

    fn list(&mut self, n: &YamlNode) -> Option<ListExpression> {
        let list = expression(n, "`for_each`", ListExpression::parse, &ListExpression::VARIABLES, self.report)?;
        self.check_reads(n, list.source(), list.referenced_nodes());
        Some(list)
    }

    pub(super) fn join(&mut self, node: &NodeName, given: &YamlNode) -> Option<Join> {
        const FORM: &str = "`join` is `all`, `any` or `{quorum: n}`";
        self.spans.join(node, given.span);
        match &given.value {
            YamlValue::Str(word, _) => match word.as_str() {
                "all" => Some(Join::All),
                "any" => Some(Join::Any),
                _ => {
                    self.report.error(given.span, format!("{FORM}, not `{}`", shown(word)));
                    None
                }
            },
            YamlValue::Map(_) => {
                let mut f = MapReader::open(given, "`join`", &keys::JOIN, self.report)?;
                let quorum = f.need("quorum", self.report);
                let quorum = quorum.and_then(|n| integer(n, "`quorum`", 1..=1000, self.report));
                f.finish(&[], self.report);
                quorum.map(Join::Quorum)
            }
            YamlValue::Int(n @ 1..) => {
                self.report.error_with_hint(
                    given.span,
                    format!("{FORM}, and this is a number"),
                    format!("did you mean `{{quorum: {n}}}`?"),
                );
                None
            }
            _ => {
                wrong(given, FORM, self.report);
                None
            }
        }
    }
}
