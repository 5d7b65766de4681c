//! What was measured, with medians and spreads, and the ratio to the other server.

use std::collections::BTreeMap;

use serde_json::json;

/// Measures in the order in which they were first noted.
#[derive(Debug, Default)]
pub(super) struct Table {
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    measure: String,
    unit: &'static str,
    values: BTreeMap<&'static str, Vec<f64>>,
    /// What the machine could do at best.
    limit: Option<f64>,
}

impl Table {
    /// One more value of a measure.
    pub(super) fn note(&mut self, measure: &str, unit: &'static str, who: &'static str, value: f64) {
        let at = self.rows.iter().position(|row| row.measure == measure).unwrap_or_else(|| {
            self.rows.push(Row { measure: measure.to_owned(), unit, values: BTreeMap::new(), limit: None });
            self.rows.len() - 1
        });
        self.rows[at].values.entry(who).or_default().push(value);
    }

    /// The median of a measure.
    pub(super) fn median(&self, measure: &str, who: &str) -> Option<f64> {
        let row = self.rows.iter().find(|row| row.measure == measure)?;
        Some(spread(row.values.get(who)?)[0])
    }

    /// What the machine could do at best, of a measure that was noted.
    pub(super) fn limit(&mut self, measure: &str, value: f64) {
        if let Some(row) = self.rows.iter_mut().find(|row| row.measure == measure) {
            row.limit = Some(value);
        }
    }

    /// Prints it on standard output: a table, or an object per measure.
    pub(super) fn print(&self, as_json: bool) {
        if as_json {
            self.rows.iter().for_each(|row| println!("{}", row.json()));
        } else {
            print!("{}", self.text());
        }
    }

    fn text(&self) -> String {
        let head = ["MEASURE", "ARTEL", "LEAST", "MOST", "OTHER", "LEAST", "MOST", "RATIO", "LIMIT", "SHARE"]
            .map(str::to_owned);
        let lines: Vec<[String; 10]> = [head].into_iter().chain(self.rows.iter().map(Row::cells)).collect();
        let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..10).map(width).collect();
        let line = |cells: &[String; 10]| {
            let cells = cells.iter().zip(&widths).enumerate();
            let padded = cells.map(|(n, (cell, w))| if n == 0 { format!("{cell:<w$}") } else { format!("{cell:>w$}") });
            padded.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
        };
        lines.iter().map(line).collect()
    }
}

impl Row {
    fn cells(&self) -> [String; 10] {
        let of = |who| self.values.get(who).map(|values| spread(values));
        let show = |value: f64| if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.3}") };
        let cells = |who| of(who).map_or([const { String::new() }; 3], |[m, l, h]: [f64; 3]| [m, l, h].map(show));
        let [a, b, c] = cells("artel");
        let [d, e, f] = cells(self.other());
        let ratio = self.ratio().map(|ratio| format!("{ratio:.2}")).unwrap_or_default();
        let measure =
            if self.unit.is_empty() { self.measure.clone() } else { format!("{}, {}", self.measure, self.unit) };
        let limit = self.limit.map(show).unwrap_or_default();
        let share = self.share().map(|share| format!("{:.0} %", 100.0 * share)).unwrap_or_default();
        [measure, a, b, c, d, e, f, ratio, limit, share]
    }

    /// How much of what the machine could do at best we do: of a speed, or of a time, which is the other way round.
    fn share(&self) -> Option<f64> {
        let (own, limit) = (spread(self.values.get("artel")?)[0], self.limit?);
        Some(if self.unit == "/s" { own / limit } else { limit / own })
    }

    /// Whom we are compared with: another server, or else ourselves with engines inside, or else llama.cpp alone.
    fn other(&self) -> &'static str {
        ["peer", "inside"].into_iter().find(|who| self.values.contains_key(who)).unwrap_or("llama.cpp")
    }

    /// Ours to theirs, of the medians; none to nothing.
    fn ratio(&self) -> Option<f64> {
        let ratio = spread(self.values.get("artel")?)[0] / spread(self.values.get(self.other())?)[0];
        Some(ratio).filter(|ratio| ratio.is_finite())
    }

    fn json(&self) -> serde_json::Value {
        let of = |values: &Vec<f64>| {
            let [median, least, most] = spread(values);
            json!({"median": median, "least": least, "most": most, "values": values})
        };
        let values: BTreeMap<_, _> = self.values.iter().map(|(who, values)| (*who, of(values))).collect();
        json!({"measure": self.measure, "unit": self.unit, "values": values, "ratio": self.ratio(), "limit": self.limit, "share": self.share()})
    }
}

/// Median, least and most.
fn spread(values: &[f64]) -> [f64; 3] {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |n: usize| sorted.get(n).copied().unwrap_or(f64::NAN);
    [at(sorted.len() / 2), at(0), at(sorted.len().saturating_sub(1))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_spreads_and_ratios_are_shown() {
        let mut table = Table::default();
        for (who, value) in
            [("artel", 2.0), ("peer", 1.0), ("artel", 4.0), ("peer", 2.0), ("artel", 3.0), ("peer", 0.5)]
        {
            table.note("speed", "/s", who, value);
        }
        table.note("alone", "", "artel", 120.0);
        ["artel", "peer"].into_iter().for_each(|who| table.note("lost", "", who, 0.0));
        table.limit("speed", 4.0);
        insta::assert_snapshot!(table.text());
        assert_eq!(table.rows[0].json()["ratio"], 3.0);
        assert_eq!(table.rows[0].json()["share"], 0.75);
        assert_eq!(table.rows[2].json()["ratio"], serde_json::Value::Null);
    }
}
