//! Paths of visits and steps in a task.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::NodeName;

/// The deepest nesting of sub-graphs, and so the most parents of a visit. It bounds recursion and the length of ids.
pub const MAX_DEPTH: usize = 8;

/// One visit of a node in one run of its graph, without its parents; a node in a cycle is visited again. Displays as `node`,
/// from the second visit as `node#2`, for an item of a `for_each` as `node[7]`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PathSegment {
    /// The node.
    pub node: NodeName,
    /// 1 for the first visit.
    pub number: u32,
    /// The item of the node's `for_each`, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item: Option<u32>,
}

/// A visit with the visits of the sub-graphs around it. Displays as a path: `outer[3]/inner#2`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Visit {
    /// The visits of the sub-graphs around it, the outermost first.
    #[serde(rename = "within", default, skip_serializing_if = "Vec::is_empty")]
    pub parents: Vec<PathSegment>,
    /// The node.
    pub node: NodeName,
    /// 1 for the first visit.
    pub number: u32,
    /// The item of the node's `for_each`, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item: Option<u32>,
}

impl Visit {
    /// The visit with these parents.
    pub fn new(parents: &[PathSegment], segment: PathSegment) -> Self {
        let PathSegment { node, number, item } = segment;
        Self { parents: parents.to_vec(), node, number, item }
    }

    /// The visit without its parents.
    pub fn segment(&self) -> PathSegment {
        PathSegment { node: self.node.clone(), number: self.number, item: self.item }
    }

    /// The visit of the whole node, if this is one of its items; otherwise the visit itself.
    pub fn without_item(&self) -> Self {
        Self { item: None, ..self.clone() }
    }

    /// The path of visits inside this visit's sub-graph.
    pub fn child_path(&self) -> Vec<PathSegment> {
        let mut path = self.parents.clone();
        path.push(self.segment());
        path
    }

    /// The node with those around it: `outer/inner`.
    pub fn node_path(&self) -> String {
        let mut path = String::new();
        for parent in &self.parents {
            path.push_str(parent.node.as_str());
            path.push('/');
        }
        path + self.node.as_str()
    }

    /// The innermost item that it belongs to.
    pub fn innermost_item(&self) -> Option<u32> {
        self.item.or_else(|| self.parents.iter().rev().find_map(|parent| parent.item))
    }

    /// Whether it is inside `outer`, as one of its items or in its sub-graph.
    pub fn is_inside(&self, outer: &Self) -> bool {
        let Some(rest) = self.parents.strip_prefix(outer.parents.as_slice()) else { return false };
        let segment = rest.first().map_or_else(|| self.segment(), Clone::clone);
        let same = segment.node == outer.node && segment.number == outer.number;
        match outer.item {
            None => same && (segment.item.is_some() || !rest.is_empty()),
            item => same && segment.item == item && !rest.is_empty(),
        }
    }
}

/// One attempt at one visit of a node. Displays as its visit does, and from the second attempt as `node#2.3`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StepId {
    /// The visit.
    pub visit: Visit,
    /// 1 for the first attempt.
    pub attempt: u32,
}

fn write_segment(f: &mut fmt::Formatter<'_>, segment: &PathSegment, attempt: u32) -> fmt::Result {
    let PathSegment { node, number, item } = segment;
    match (number, attempt) {
        (1, 1) => write!(f, "{node}")?,
        (number, 1) => write!(f, "{node}#{number}")?,
        (number, attempt) => write!(f, "{node}#{number}.{attempt}")?,
    }
    item.map_or(Ok(()), |item| write!(f, "[{item}]"))
}

impl fmt::Display for PathSegment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_segment(f, self, 1)
    }
}

impl fmt::Display for Visit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parents.iter().try_for_each(|parent| write!(f, "{parent}/"))?;
        write_segment(f, &self.segment(), 1)
    }
}

impl fmt::Display for StepId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.visit.parents.iter().try_for_each(|parent| write!(f, "{parent}/"))?;
        write_segment(f, &self.visit.segment(), self.attempt)
    }
}

impl StepId {
    /// Parses the form that [`fmt::Display`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('/');
        let (last, attempt) = parse_segment(parts.next_back()?)?;
        let around: Option<Vec<_>> =
            parts.map(|part| parse_segment(part).filter(|(_, attempt)| *attempt == 1)).collect();
        let parents: Vec<PathSegment> = around?.into_iter().map(|(segment, _)| segment).collect();
        (parents.len() <= MAX_DEPTH).then(|| Self { visit: Visit::new(&parents, last), attempt })
    }
}

fn parse_segment(text: &str) -> Option<(PathSegment, u32)> {
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
    Some((PathSegment { node, number: number.parse().ok()?, item }, attempt.parse().ok()?))
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
    fn a_visit_is_inside_its_node_and_its_parents() {
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
