//! Where in its graph, and how often, something is run.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::NodeName;

/// The deepest that sub-graphs nest, and so the most places that lie around a visit.
pub const MAX_DEPTH: usize = 8;

/// One activation of a node inside one run of its graph; a node inside a cycle is visited again. Displays as `node`, from
/// the second visit `node#2`, for an item of a `for_each` `node[7]`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Place {
    /// Which node.
    pub node: NodeName,
    /// 1 for the first visit.
    pub number: u32,
    /// The item of the node's `for_each`, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item: Option<u32>,
}

/// A place, and the visits of the sub-graphs around it. Displays as a path: `outer[3]/inner#2`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Visit {
    /// The visits of sub-graphs inside of which it lies, the outermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub within: Vec<Place>,
    /// Which node.
    pub node: NodeName,
    /// 1 for the first visit.
    pub number: u32,
    /// The item of the node's `for_each`, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item: Option<u32>,
}

impl Visit {
    /// The visit of a place inside of these.
    pub fn new(within: &[Place], place: Place) -> Self {
        let Place { node, number, item } = place;
        Self { within: within.to_vec(), node, number, item }
    }

    /// The visit without what lies around it.
    pub fn place(&self) -> Place {
        Place { node: self.node.clone(), number: self.number, item: self.item }
    }

    /// The same node's visit as a whole, of which this may be one item.
    pub fn whole(&self) -> Self {
        Self { item: None, ..self.clone() }
    }

    /// The path of what lies inside of this visit's sub-graph.
    pub fn inside(&self) -> Vec<Place> {
        let mut path = self.within.clone();
        path.push(self.place());
        path
    }

    /// The node, with those around it: `outer/inner`.
    pub fn path(&self) -> String {
        let mut path = String::new();
        for place in &self.within {
            path.push_str(place.node.as_str());
            path.push('/');
        }
        path + self.node.as_str()
    }

    /// The innermost item that it belongs to.
    pub fn innermost_item(&self) -> Option<u32> {
        self.item.or_else(|| self.within.iter().rev().find_map(|place| place.item))
    }

    /// Whether it lies inside of `outer`, as an item of it or in its sub-graph.
    pub fn is_inside(&self, outer: &Self) -> bool {
        let Some(rest) = self.within.strip_prefix(outer.within.as_slice()) else { return false };
        let at = rest.first().map_or_else(|| self.place(), Clone::clone);
        let same = at.node == outer.node && at.number == outer.number;
        match outer.item {
            None => same && (at.item.is_some() || !rest.is_empty()),
            item => same && at.item == item && !rest.is_empty(),
        }
    }
}

/// One attempt at one visit of a node. Displays as its visit does, and from the second attempt as `node#2.3`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StepId {
    /// Which visit of which node.
    pub visit: Visit,
    /// 1 for the first attempt.
    pub attempt: u32,
}

fn show(f: &mut fmt::Formatter<'_>, place: &Place, attempt: u32) -> fmt::Result {
    let Place { node, number, item } = place;
    match (number, attempt) {
        (1, 1) => write!(f, "{node}")?,
        (number, 1) => write!(f, "{node}#{number}")?,
        (number, attempt) => write!(f, "{node}#{number}.{attempt}")?,
    }
    item.map_or(Ok(()), |item| write!(f, "[{item}]"))
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, self, 1)
    }
}

impl fmt::Display for Visit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.within.iter().try_for_each(|place| write!(f, "{place}/"))?;
        show(f, &self.place(), 1)
    }
}

impl fmt::Display for StepId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.visit.within.iter().try_for_each(|place| write!(f, "{place}/"))?;
        show(f, &self.visit.place(), self.attempt)
    }
}

impl StepId {
    /// Reads what [`fmt::Display`] gives.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('/');
        let (last, attempt) = place(parts.next_back()?)?;
        let around: Option<Vec<_>> = parts.map(|part| place(part).filter(|(_, attempt)| *attempt == 1)).collect();
        let within: Vec<Place> = around?.into_iter().map(|(place, _)| place).collect();
        (within.len() <= MAX_DEPTH).then(|| Self { visit: Visit::new(&within, last), attempt })
    }
}

fn place(text: &str) -> Option<(Place, u32)> {
    let (text, item) = match text.strip_suffix(']') {
        Some(text) => {
            let (text, item) = text.rsplit_once('[')?;
            (text, Some(item.parse().ok()?))
        }
        None => (text, None),
    };
    let (node, numbers) = text.split_once('#').map_or((text, None), |(node, numbers)| (node, Some(numbers)));
    let (number, attempt) = match numbers {
        Some(numbers) => numbers.split_once('.').map_or((numbers, "1"), |both| both),
        None => ("1", "1"),
    };
    let node = NodeName::parse(node).ok()?;
    Some((Place { node, number: number.parse().ok()?, item }, attempt.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_survive_text() {
        for text in ["a", "a#2", "a#1.2", "a[0]", "a#2.3[7]", "outer[3]/inner#2", "a/b/c#1.9[12]"] {
            assert_eq!(StepId::parse(text).unwrap().to_string(), text);
        }
        for bad in ["", "/", "a/", "A", "a#", "a#x", "a[", "a]", "a[x]", "a#1.2/b", &"a/".repeat(9)] {
            assert_eq!(StepId::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_lies_inside_of_a_visit_is_known() {
        let visit = |text: &str| StepId::parse(text).unwrap().visit;
        for (inner, outer) in [("a[1]", "a"), ("a/b", "a"), ("a[1]/b", "a"), ("a[1]/b", "a[1]"), ("x/a/b#2", "x/a")] {
            assert!(visit(inner).is_inside(&visit(outer)), "{inner} in {outer}");
        }
        for (inner, outer) in
            [("a", "a"), ("a[1]", "a[1]"), ("a[1]/b", "a[2]"), ("a#2/b", "a"), ("b/a", "a"), ("x", "x/y")]
        {
            assert!(!visit(inner).is_inside(&visit(outer)), "{inner} not in {outer}");
        }
    }

    #[test]
    fn a_visit_of_an_older_journal_is_read() {
        let step: StepId = serde_json::from_str(r#"{"visit":{"node":"a","number":2},"attempt":1}"#).unwrap();
        assert_eq!(step.to_string(), "a#2");
        assert_eq!(serde_json::to_string(&step).unwrap(), r#"{"visit":{"node":"a","number":2},"attempt":1}"#);
    }
}
