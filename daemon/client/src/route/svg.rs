//! The results of an evaluation as SVG: metrics of each method, calibration, and the confusion matrix.

use std::fmt::Write as _;

use artel_router::evaluation::{BINS, EvalReport};

/// The height of one bar.
const BAR_PIXELS: usize = 16;
/// The side of one cell of the confusion matrix.
const CELL_PIXELS: usize = 44;
/// The left edge of diagrams, right of their labels.
const LEFT_PIXELS: usize = 130;
/// The gap between a label and its diagram.
const GAP_PIXELS: usize = 8;
/// Above this fraction of its row, a cell is dark and its text is white.
const DARK_RATIO: f64 = 0.5;
/// Attributes of text.
const MIDDLE: &str = "text-anchor=\"middle\"";
const SMALL: &str = "text-anchor=\"middle\" font-size=\"10\" fill=\"#555\"";
/// Colours of the three metrics.
const COLOURS: [&str; 3] = ["#2b6cb0", "#2f855a", "#c05621"];

/// An SVG document that grows downwards.
struct SvgCanvas {
    body: String,
    y: usize,
    width: usize,
}

/// The report as an SVG document.
pub(super) fn draw(report: &EvalReport) -> String {
    let width = (LEFT_PIXELS + 20 + CELL_PIXELS * report.roles.len()).max(560);
    let mut canvas = SvgCanvas { body: String::new(), y: 10, width };
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

impl SvgCanvas {
    fn title(&mut self, text: &str) {
        self.y += 20;
        self.text(10, self.y, text, "font-weight=\"bold\"");
        self.y += 12;
    }

    fn text(&mut self, x: usize, y: usize, text: &str, attributes: &str) {
        let _ = writeln!(self.body, "<text x=\"{x}\" y=\"{y}\" {attributes}>{}</text>", escape(text));
    }

    /// The label of a row.
    fn row_label(&mut self, middle: usize, text: &str) {
        self.text(LEFT_PIXELS - GAP_PIXELS, middle + 4, text, "text-anchor=\"end\"");
    }

    fn rect(&mut self, (x, y): (f64, f64), (w, h): (f64, f64), attributes: &str) {
        let _ =
            writeln!(self.body, "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{w:.1}\" height=\"{h:.1}\" {attributes}/>");
    }
}

fn bars(canvas: &mut SvgCanvas, report: &EvalReport) {
    canvas.title(&format!("{} cases, threshold {:.2}", report.cases, report.threshold));
    for (at, name) in ["accuracy", "out-of-scope recall", "false rejections"].into_iter().enumerate() {
        let x = LEFT_PIXELS + at * 140;
        canvas.rect((x as f64, canvas.y as f64 - 4.0), (10.0, 10.0), &format!("fill=\"{}\"", COLOURS[at]));
        canvas.text(x + 15, canvas.y + 5, name, "");
    }
    canvas.y += 16;
    let max_width = (canvas.width - LEFT_PIXELS - 60) as f64;
    for method in &report.methods {
        canvas.row_label(canvas.y + BAR_PIXELS * 3 / 2, &method.name);
        for (value, colour) in
            [method.accuracy, method.out_of_scope_recall, method.false_rejections].into_iter().zip(COLOURS)
        {
            let origin = (LEFT_PIXELS as f64, canvas.y as f64);
            canvas.rect(origin, (max_width * value, BAR_PIXELS as f64 - 3.0), &format!("fill=\"{colour}\""));
            let end = LEFT_PIXELS + (max_width * value) as usize + 4;
            canvas.text(end, canvas.y + BAR_PIXELS - 5, &format!("{value:.3}"), "font-size=\"10\"");
            canvas.y += BAR_PIXELS;
        }
        canvas.y += 6;
    }
}

/// The reliability diagram: the accuracy at each confidence; a calibrated router follows the diagonal.
fn reliability(canvas: &mut SvgCanvas, report: &EvalReport) {
    const SIDE_PIXELS: f64 = 200.0;
    let Some(combined) = report.methods.last() else { return };
    canvas.title(&format!("combined: accuracy by confidence (ECE {:.3})", combined.ece));
    let (x, y) = (LEFT_PIXELS as f64, canvas.y as f64);
    canvas.rect((x, y), (SIDE_PIXELS, SIDE_PIXELS), "fill=\"none\" stroke=\"#999\"");
    let step = SIDE_PIXELS / BINS as f64;
    for (at, (count, _, accuracy)) in combined.bins.iter().enumerate().filter(|(_, bin)| bin.0 > 0) {
        let origin = (x + step * at as f64, y + SIDE_PIXELS * (1.0 - accuracy));
        canvas.rect(origin, (step - 1.0, SIDE_PIXELS * accuracy), "fill=\"#2b6cb0\" fill-opacity=\"0.7\"");
        let under = canvas.y + SIDE_PIXELS as usize + 12;
        canvas.text(LEFT_PIXELS + (step * (at as f64 + 0.5)) as usize, under, &count.to_string(), SMALL);
    }
    let _ = writeln!(
        canvas.body,
        "<line x1=\"{x}\" y1=\"{}\" x2=\"{}\" y2=\"{y}\" stroke=\"#1a202c\" stroke-dasharray=\"4\"/>",
        y + SIDE_PIXELS,
        x + SIDE_PIXELS
    );
    let bottom = canvas.y + SIDE_PIXELS as usize;
    for (fraction, label) in [(0.0, "0"), (0.5, "0.5"), (1.0, "1")] {
        canvas.row_label(bottom - (SIDE_PIXELS * fraction) as usize, label);
        canvas.text(LEFT_PIXELS + (SIDE_PIXELS * fraction) as usize, bottom + 26, label, SMALL);
    }
    canvas.row_label(bottom + 8, "cases");
    canvas.row_label(bottom + 22, "confidence");
    canvas.y = bottom + 34;
}

fn confusion(canvas: &mut SvgCanvas, report: &EvalReport) {
    let Some(combined) = report.methods.last() else { return };
    canvas.title("combined: correct role (rows) and selected role (columns)");
    for (at, role) in report.roles.iter().enumerate() {
        let (x, y) = (LEFT_PIXELS + at * CELL_PIXELS + CELL_PIXELS / 2, canvas.y + 60);
        canvas.text(x, y, role, &format!("font-size=\"10\" transform=\"rotate(-45 {x} {y})\""));
    }
    canvas.y += 68;
    for (role, row) in report.roles.iter().zip(&combined.confusion) {
        canvas.row_label(canvas.y + CELL_PIXELS / 2, role);
        let total = row.iter().sum::<usize>().max(1);
        for (at, count) in row.iter().enumerate() {
            let (x, y) = (LEFT_PIXELS + at * CELL_PIXELS, canvas.y);
            let shade = *count as f64 / total as f64;
            let attributes = format!("fill=\"#2b6cb0\" fill-opacity=\"{shade:.2}\" stroke=\"#ccc\"");
            canvas.rect((x as f64, y as f64), (CELL_PIXELS as f64, CELL_PIXELS as f64), &attributes);
            if *count > 0 {
                let colour = if shade > DARK_RATIO { "white" } else { "black" };
                let attributes = format!("{MIDDLE} fill=\"{colour}\"");
                canvas.text(x + CELL_PIXELS / 2, y + CELL_PIXELS / 2 + 4, &count.to_string(), &attributes);
            }
        }
        canvas.y += CELL_PIXELS;
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_svg_has_every_method_and_role() {
        let svg = super::draw(&super::super::evaluate::tests::report());
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        for part in [">keyword<", ">combined<", ">gpu<", ">none<", "ECE 0."] {
            assert!(svg.contains(part), "{part}");
        }
        assert_eq!(super::escape("<a & b>"), "&lt;a &amp; b&gt;");
    }
}
