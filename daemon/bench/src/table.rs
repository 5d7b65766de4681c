//! The results: medians, minima and maxima, and the ratio to the other server and to the limit.

use std::collections::BTreeMap;

use serde_json::json;

/// Metrics in the order in which they were first recorded.
#[derive(Debug, Default)]
pub(crate) struct BenchTable {
    rows: Vec<BenchRow>,
}

#[derive(Debug)]
struct BenchRow {
    metric: String,
    unit: &'static str,
    values: BTreeMap<&'static str, Vec<f64>>,
    /// The best value that the machine can reach.
    limit: Option<f64>,
}

impl BenchTable {
    /// Adds a value of a metric.
    pub(crate) fn record(&mut self, metric: &str, unit: &'static str, target: &'static str, value: f64) {
        let index = self.rows.iter().position(|row| row.metric == metric).unwrap_or_else(|| {
            self.rows.push(BenchRow { metric: metric.to_owned(), unit, values: BTreeMap::new(), limit: None });
            self.rows.len() - 1
        });
        self.rows[index].values.entry(target).or_default().push(value);
    }

    /// The median of a metric.
    pub(crate) fn median(&self, metric: &str, target: &str) -> Option<f64> {
        let row = self.rows.iter().find(|row| row.metric == metric)?;
        Some(median_min_max(row.values.get(target)?)[0])
    }

    /// Sets the best value that the machine can reach, of a metric that was recorded.
    pub(crate) fn set_limit(&mut self, metric: &str, value: f64) {
        if let Some(row) = self.rows.iter_mut().find(|row| row.metric == metric) {
            row.limit = Some(value);
        }
    }

    /// Prints to standard output: a table, or one JSON object per metric.
    pub(crate) fn print(&self, as_json: bool) {
        if as_json {
            self.rows.iter().for_each(|row| println!("{}", row.json()));
        } else {
            print!("{}", self.render_text());
        }
    }

    fn render_text(&self) -> String {
        let head =
            ["METRIC", "ARTEL", "MIN", "MAX", "OTHER", "MIN", "MAX", "RATIO", "LIMIT", "OF LIMIT"].map(str::to_owned);
        let lines: Vec<[String; 10]> = [head].into_iter().chain(self.rows.iter().map(BenchRow::cells)).collect();
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

impl BenchRow {
    fn cells(&self) -> [String; 10] {
        let of = |target| self.values.get(target).map(|values| median_min_max(values));
        let show = |value: f64| if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.3}") };
        let cells = |target| of(target).map_or([const { String::new() }; 3], |[m, l, h]: [f64; 3]| [m, l, h].map(show));
        let [a, b, c] = cells("artel");
        let [d, e, f] = cells(self.other());
        let ratio = self.ratio().map(|ratio| format!("{ratio:.2}")).unwrap_or_default();
        let metric = if self.unit.is_empty() { self.metric.clone() } else { format!("{}, {}", self.metric, self.unit) };
        let limit = self.limit.map(show).unwrap_or_default();
        let limit_ratio = self.limit_ratio().map(|ratio| format!("{:.0} %", 100.0 * ratio)).unwrap_or_default();
        [metric, a, b, c, d, e, f, ratio, limit, limit_ratio]
    }

    /// The fraction of the limit that is reached: own / limit of a rate (`.../s`), limit / own of a time.
    fn limit_ratio(&self) -> Option<f64> {
        let (own, limit) = (median_min_max(self.values.get("artel")?)[0], self.limit?);
        Some(if self.unit.ends_with("/s") { own / limit } else { limit / own })
    }

    /// The column to compare with: the other server, else the same daemon over gRPC, else a daemon with engines in its process or with traces, else the same one
    /// at rest, else llama.cpp alone.
    fn other(&self) -> &'static str {
        let others = ["peer", "grpc", "in_process", "traced", "quiet"];
        others.into_iter().find(|target| self.values.contains_key(target)).unwrap_or("llama.cpp")
    }

    /// Own median / other median; none if there is no other or it is 0.
    fn ratio(&self) -> Option<f64> {
        let ratio = median_min_max(self.values.get("artel")?)[0] / median_min_max(self.values.get(self.other())?)[0];
        Some(ratio).filter(|ratio| ratio.is_finite())
    }

    fn json(&self) -> serde_json::Value {
        let of = |values: &Vec<f64>| {
            let [median, min, max] = median_min_max(values);
            json!({"median": median, "min": min, "max": max, "values": values})
        };
        let values: BTreeMap<_, _> = self.values.iter().map(|(target, values)| (*target, of(values))).collect();
        json!({
            "metric": self.metric,
            "unit": self.unit,
            "values": values,
            "ratio": self.ratio(),
            "limit": self.limit,
            "limit_ratio": self.limit_ratio(),
        })
    }
}

/// Median, minimum and maximum.
fn median_min_max(values: &[f64]) -> [f64; 3] {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |n: usize| sorted.get(n).copied().unwrap_or(f64::NAN);
    [at(sorted.len() / 2), at(0), at(sorted.len().saturating_sub(1))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_ranges_and_ratios_are_shown() {
        let mut table = BenchTable::default();
        for (target, value) in
            [("artel", 2.0), ("peer", 1.0), ("artel", 4.0), ("peer", 2.0), ("artel", 3.0), ("peer", 0.5)]
        {
            table.record("speed", "tokens/s", target, value);
        }
        table.record("alone", "", "artel", 120.0);
        ["artel", "peer"].into_iter().for_each(|target| table.record("lost", "", target, 0.0));
        table.set_limit("speed", 4.0);
        insta::assert_snapshot!(table.render_text());
        assert_eq!(table.rows[0].json()["ratio"], 3.0);
        assert_eq!(table.rows[0].json()["limit_ratio"], 0.75);
        assert_eq!(table.rows[2].json()["ratio"], serde_json::Value::Null);
    }
}
