//! What was measured, as a picture: figures of each method, how sure and how right it is, and who is taken for whom.

use std::fmt::Write as _;

use super::measure::{BINS, Report};

/// Height of one bar.
const BAR: usize = 16;
/// Side of one cell of the confusion.
const CELL: usize = 44;
/// Where drawings begin, right of their names.
const LEFT: usize = 130;
/// Room between a name and its drawing.
const GAP: usize = 8;
/// Above this share of its row, a cell is so dark that black is hard to read on it.
const DARK: f64 = 0.5;
/// How text stands.
const MIDDLE: &str = "text-anchor=\"middle\"";
const SMALL: &str = "text-anchor=\"middle\" font-size=\"10\" fill=\"#555\"";
/// Colours of the three figures.
const COLOURS: [&str; 3] = ["#2b6cb0", "#2f855a", "#c05621"];

/// A drawing that grows downwards.
struct Canvas {
    body: String,
    y: usize,
    width: usize,
}

/// The picture as SVG.
pub(super) fn draw(report: &Report) -> String {
    let width = (LEFT + 20 + CELL * report.roles.len()).max(560);
    let mut canvas = Canvas { body: String::new(), y: 10, width };
    bars(&mut canvas, report);
    reliability(&mut canvas, report);
    confusion(&mut canvas, report);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{}</svg>\n",
        canvas.y + 10,
        canvas.body
    )
}

impl Canvas {
    fn title(&mut self, text: &str) {
        self.y += 20;
        self.text(10, self.y, text, "font-weight=\"bold\"");
        self.y += 12;
    }

    fn text(&mut self, x: usize, y: usize, text: &str, how: &str) {
        let _ = writeln!(self.body, "<text x=\"{x}\" y=\"{y}\" {how}>{}</text>", escape(text));
    }

    /// The name of a drawing's row, close to it.
    fn name(&mut self, middle: usize, text: &str) {
        self.text(LEFT - GAP, middle + 4, text, "text-anchor=\"end\"");
    }

    fn rect(&mut self, (x, y): (f64, f64), (w, h): (f64, f64), how: &str) {
        let _ = writeln!(self.body, "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{w:.1}\" height=\"{h:.1}\" {how}/>");
    }
}

fn bars(canvas: &mut Canvas, report: &Report) {
    canvas.title(&format!("{} cases, threshold {:.2}", report.cases, report.threshold));
    for (at, name) in ["accuracy", "out of scope caught", "false alarms"].into_iter().enumerate() {
        let x = LEFT + at * 140;
        canvas.rect((x as f64, canvas.y as f64 - 4.0), (10.0, 10.0), &format!("fill=\"{}\"", COLOURS[at]));
        canvas.text(x + 15, canvas.y + 5, name, "");
    }
    canvas.y += 16;
    let room = (canvas.width - LEFT - 60) as f64;
    for method in &report.methods {
        canvas.name(canvas.y + BAR * 3 / 2, &method.name);
        for (value, colour) in [method.accuracy, method.caught, method.false_alarms].into_iter().zip(COLOURS) {
            let place = (LEFT as f64, canvas.y as f64);
            canvas.rect(place, (room * value, BAR as f64 - 3.0), &format!("fill=\"{colour}\""));
            let end = LEFT + (room * value) as usize + 4;
            canvas.text(end, canvas.y + BAR - 5, &format!("{value:.3}"), "font-size=\"10\"");
            canvas.y += BAR;
        }
        canvas.y += 6;
    }
}

/// How right decisions are that are so sure: a calibrated router follows the line.
fn reliability(canvas: &mut Canvas, report: &Report) {
    const SIDE: f64 = 200.0;
    let Some(combined) = report.methods.last() else { return };
    canvas.title(&format!("combined: share that is right, by confidence (ECE {:.3})", combined.ece));
    let (x, y) = (LEFT as f64, canvas.y as f64);
    canvas.rect((x, y), (SIDE, SIDE), "fill=\"none\" stroke=\"#999\"");
    let step = SIDE / BINS as f64;
    for (at, (count, _, right)) in combined.bins.iter().enumerate().filter(|(_, bin)| bin.0 > 0) {
        let place = (x + step * at as f64, y + SIDE * (1.0 - right));
        canvas.rect(place, (step - 1.0, SIDE * right), "fill=\"#2b6cb0\" fill-opacity=\"0.7\"");
        let under = canvas.y + SIDE as usize + 12;
        canvas.text(LEFT + (step * (at as f64 + 0.5)) as usize, under, &count.to_string(), SMALL);
    }
    let _ = writeln!(
        canvas.body,
        "<line x1=\"{x}\" y1=\"{}\" x2=\"{}\" y2=\"{y}\" stroke=\"#1a202c\" stroke-dasharray=\"4\"/>",
        y + SIDE,
        x + SIDE
    );
    let bottom = canvas.y + SIDE as usize;
    for (share, name) in [(0.0, "0"), (0.5, "0.5"), (1.0, "1")] {
        canvas.name(bottom - (SIDE * share) as usize, name);
        canvas.text(LEFT + (SIDE * share) as usize, bottom + 26, name, SMALL);
    }
    canvas.name(bottom + 8, "cases");
    canvas.name(bottom + 22, "confidence");
    canvas.y = bottom + 34;
}

fn confusion(canvas: &mut Canvas, report: &Report) {
    let Some(combined) = report.methods.last() else { return };
    canvas.title("combined: right role (rows) and chosen role (columns)");
    for (at, role) in report.roles.iter().enumerate() {
        let (x, y) = (LEFT + at * CELL + CELL / 2, canvas.y + 60);
        canvas.text(x, y, role, &format!("font-size=\"10\" transform=\"rotate(-45 {x} {y})\""));
    }
    canvas.y += 68;
    for (role, row) in report.roles.iter().zip(&combined.confusion) {
        canvas.name(canvas.y + CELL / 2, role);
        let total = row.iter().sum::<usize>().max(1);
        for (at, count) in row.iter().enumerate() {
            let (x, y) = (LEFT + at * CELL, canvas.y);
            let shade = *count as f64 / total as f64;
            let how = format!("fill=\"#2b6cb0\" fill-opacity=\"{shade:.2}\" stroke=\"#ccc\"");
            canvas.rect((x as f64, y as f64), (CELL as f64, CELL as f64), &how);
            if *count > 0 {
                let colour = if shade > DARK { "white" } else { "black" };
                let how = format!("{MIDDLE} fill=\"{colour}\"");
                canvas.text(x + CELL / 2, y + CELL / 2 + 4, &count.to_string(), &how);
            }
        }
        canvas.y += CELL;
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_picture_has_every_method_and_role() {
        let svg = super::draw(&super::super::measure::tests::report());
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        for part in [">keyword<", ">combined<", ">gpu<", ">none<", "ECE 0."] {
            assert!(svg.contains(part), "{part}");
        }
        assert_eq!(super::escape("<a & b>"), "&lt;a &amp; b&gt;");
    }
}
