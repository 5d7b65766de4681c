//! How a node is run: for which items, how hard, how often at most, and how its branches meet.

use std::time::Duration;

use artel_task::NodeName;
use artel_task::graph::{ForEach, ReplaySafety, StepPolicy, Join, MAX_ITEMS, RetryPolicy};

use super::Reader;
use super::edge::expression;
use crate::decode::{Fields, boolean, choice, duration, integer, wrong};
use crate::node::{Node, Value};
use crate::problem::shown;
use artel_task::condition::ListExpression;

/// Items that run at once unless the node says otherwise: enough to fill a batch of the engine.
const PARALLEL: u32 = 8;
/// The most items that run at once.
const MAX_PARALLEL: u32 = 256;
/// Items unless the node says otherwise.
const ITEMS: u32 = 1000;
const DAY: Duration = Duration::from_secs(86_400);
/// The pause before a second attempt, unless the node says otherwise.
const PAUSE: Duration = Duration::from_millis(500);
/// The longest pause, unless the node says otherwise.
const LONGEST: Duration = Duration::from_secs(30);

/// How hard a node is tried, and what doing it twice would do.
#[derive(Default)]
pub(super) struct How {
    pub(super) effort: StepPolicy,
    pub(super) effect: ReplaySafety,
    pub(super) cache: bool,
}

impl Reader<'_, '_, '_> {
    pub(super) fn how(&mut self, node: &NodeName, f: &mut Fields<'_>) -> How {
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
                    ("ask", "timeout" | "idle") => {
                        "say how long there is for an answer with `deadline` in `ask`".to_owned()
                    }
                    ("graph", _) => "say it at the nodes of that graph".to_owned(),
                    _ => format!("remove it from `{node}`"),
                };
                self.report.add_with(entry.key_span, format!("`{key}` means nothing where `{kind}` stands"), hint);
            }
        }
        let range = Duration::from_millis(100)..=DAY;
        let timeout = f.get("timeout").and_then(|n| duration(n, "`timeout`", range.clone(), self.report));
        let idle = f.get("idle").and_then(|n| duration(n, "`idle`", range, self.report));
        let retries = f.get("retries");
        let (span, retries) = (retries.map(|n| n.span), retries.and_then(|n| self.retries(n)));
        let effects =
            [("pure", ReplaySafety::Pure), ("idempotent", ReplaySafety::Idempotent), ("at_most_once", ReplaySafety::AtMostOnce)];
        let effect = f.get("effect").and_then(|n| choice(n, "`effect`", &effects, self.report)).unwrap_or_default();
        if let (ReplaySafety::AtMostOnce, Some(span), Some(RetryPolicy { count: 1.., .. })) = (effect, span, retries) {
            self.report.add(span, "a node with `effect: at_most_once` is never tried again; remove `retries`");
        }
        let cache = f.get("cache");
        let wants = cache.and_then(|n| boolean(n, "`cache`", self.report)).unwrap_or(false);
        if let Some(n) = cache.filter(|_| wants && effect != ReplaySafety::Pure) {
            self.report.add(n.span, "only a node with `effect: pure` can be answered from the cache");
        }
        How { effort: StepPolicy { retries, timeout, idle_timeout: idle }, effect, cache: wants }
    }

    fn retries(&mut self, n: &Node) -> Option<RetryPolicy> {
        const TIMES: std::ops::RangeInclusive<u32> = 0..=10;
        let plain = |at_most| RetryPolicy { count: at_most, delay: PAUSE, max_delay: LONGEST };
        if !matches!(n.value, Value::Map(_)) {
            return integer(n, "`retries`", TIMES, self.report).map(plain);
        }
        let mut f = Fields::open(n, "`retries`", self.report)?.at(n.span);
        let at_most = f.need("at_most", self.report).and_then(|n| integer(n, "`at_most`", TIMES, self.report));
        let range = Duration::from_millis(10)..=Duration::from_secs(3600);
        let pause = f.get("pause").and_then(|n| duration(n, "`pause`", range.clone(), self.report));
        let longest = f.get("longest").and_then(|n| duration(n, "`longest`", range, self.report));
        f.finish(&[], self.report);
        let pause = pause.unwrap_or(PAUSE);
        let longest = longest.unwrap_or(LONGEST.max(pause));
        if longest < pause {
            self.report.add(n.span, "`longest` is shorter than `pause`");
        }
        Some(RetryPolicy { count: at_most?, delay: pause, max_delay: longest })
    }

    pub(super) fn each(&mut self, given: &Node) -> Option<ForEach> {
        if !matches!(given.value, Value::Map(_)) {
            let list = self.list(given)?;
            return Some(ForEach { list, parallel: PARALLEL, max_items: ITEMS });
        }
        let mut f = Fields::open(given, "`for_each`", self.report)?.at(given.span);
        let list = f.need("list", self.report).map(|n| self.list(n));
        let parallel = f.get("parallel").and_then(|n| integer(n, "`parallel`", 1..=MAX_PARALLEL, self.report));
        let at_most = f.get("at_most").and_then(|n| integer(n, "`at_most`", 1..=MAX_ITEMS, self.report));
        f.finish(&[], self.report);
        Some(ForEach { list: list??, parallel: parallel.unwrap_or(PARALLEL), max_items: at_most.unwrap_or(ITEMS) })
    }

    fn list(&mut self, n: &Node) -> Option<ListExpression> {
        let list = expression(n, "`for_each`", ListExpression::parse, &ListExpression::VARIABLES, self.report)?;
        self.check_reads(n, list.source(), list.referenced_nodes());
        Some(list)
    }

    pub(super) fn join(&mut self, node: &NodeName, given: &Node) -> Option<Join> {
        const FORM: &str = "`join` is `all`, `any` or `{quorum: n}`";
        self.places.join(node, given.span);
        match &given.value {
            Value::Str(word, _) => match word.as_str() {
                "all" => Some(Join::All),
                "any" => Some(Join::Any),
                _ => {
                    self.report.add(given.span, format!("{FORM}, not `{}`", shown(word)));
                    None
                }
            },
            Value::Map(_) => {
                let mut f = Fields::open(given, "`join`", self.report)?;
                let quorum = f.need("quorum", self.report);
                let quorum = quorum.and_then(|n| integer(n, "`quorum`", 1..=1000, self.report));
                f.finish(&[], self.report);
                quorum.map(Join::Quorum)
            }
            Value::Int(n @ 1..) => {
                self.report.add_with(
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
