//! The loss of a training over its steps, as a line of text and as a picture.

use std::fmt::Write as _;

use artel_proto::v1::LossPoint;

/// Columns of the line.
const COLUMNS: usize = 60;
const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// The size of the picture, and the room for its labels.
const WIDTH_PIXELS: f64 = 720.0;
const HEIGHT_PIXELS: f64 = 360.0;
const MARGIN_PIXELS: f64 = 56.0;

/// Blocks as high as the loss, from the least to the greatest; empty if there is no point.
pub(crate) fn line(points: &[LossPoint]) -> String {
    let Some((least, greatest)) = bounds(points) else { return String::new() };
    let columns = COLUMNS.min(points.len());
    let mean = |column: usize| {
        let part = &points[column * points.len() / columns..(column + 1) * points.len() / columns];
        part.iter().map(|point| point.loss).sum::<f64>() / part.len() as f64
    };
    let block = |loss: f64| {
        let height = (loss - least) / (greatest - least).max(f64::MIN_POSITIVE) * (BLOCKS.len() - 1) as f64;
        BLOCKS[(height.round() as usize).min(BLOCKS.len() - 1)]
    };
    (0..columns).map(|column| block(mean(column))).collect()
}

/// The least and the greatest loss.
pub(crate) fn bounds(points: &[LossPoint]) -> Option<(f64, f64)> {
    let losses = || points.iter().map(|point| point.loss);
    let least = losses().min_by(f64::total_cmp)?;
    Some((least, losses().max_by(f64::total_cmp)?))
}

/// A picture of the curve, with its bounds and its last step.
pub(crate) fn svg(title: &str, points: &[LossPoint]) -> String {
    let (least, greatest) = bounds(points).unwrap_or((0.0, 1.0));
    let last = points.last().map_or(1, |point| point.step.max(1));
    let x = |step: u64| MARGIN_PIXELS + (WIDTH_PIXELS - 2.0 * MARGIN_PIXELS) * step as f64 / last as f64;
    let y = |loss: f64| {
        HEIGHT_PIXELS
            - MARGIN_PIXELS
            - (HEIGHT_PIXELS - 2.0 * MARGIN_PIXELS) * (loss - least) / (greatest - least).max(f64::MIN_POSITIVE)
    };
    let mut line = String::new();
    for point in points {
        let _ = write!(line, "{:.1},{:.1} ", x(point.step), y(point.loss));
    }
    let (left, right, top, bottom) =
        (MARGIN_PIXELS, WIDTH_PIXELS - MARGIN_PIXELS, MARGIN_PIXELS, HEIGHT_PIXELS - MARGIN_PIXELS);
    let middle = WIDTH_PIXELS / 2.0;
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH_PIXELS} {HEIGHT_PIXELS}" font-family="sans-serif" font-size="13">
<rect width="{WIDTH_PIXELS}" height="{HEIGHT_PIXELS}" fill="#fff"/>
<text x="{middle}" y="28" text-anchor="middle" font-size="15">{title}: loss in nats per token</text>
<path d="M{left} {top}V{bottom}H{right}" fill="none" stroke="#888"/>
<text x="{label}" y="{top}" text-anchor="end">{greatest:.3}</text>
<text x="{label}" y="{bottom}" text-anchor="end">{least:.3}</text>
<text x="{left}" y="{below}" text-anchor="middle">0</text>
<text x="{right}" y="{below}" text-anchor="middle">step {last}</text>
<polyline points="{line}" fill="none" stroke="#06c" stroke-width="2"/>
</svg>
"##,
        label = left - 6.0,
        below = bottom + 20.0,
        line = line.trim_end(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(losses: &[f64]) -> Vec<LossPoint> {
        (1..).zip(losses).map(|(step, loss)| LossPoint { step, loss: *loss }).collect()
    }

    #[test]
    fn the_line_falls_with_the_loss() {
        assert_eq!(line(&points(&[8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0])), "█▇▆▅▄▃▂▁");
        assert_eq!(line(&points(&[1.0, 1.0])), "▁▁");
        assert_eq!(line(&[]), "");
        assert_eq!(line(&points(&vec![1.0; 300])).chars().count(), COLUMNS);
    }

    #[test]
    fn the_picture_has_the_curve_within_its_axes() {
        let picture = svg("a.1", &points(&[3.0, 2.0, 1.0]));
        assert!(picture.contains(r#"points="258.7,56.0 461.3,180.0 664.0,304.0""#), "{picture}");
        assert!(picture.contains(">3.000</text>") && picture.contains(">step 3</text>"), "{picture}");
        assert!(svg("a.1", &[]).contains(r#"points="""#));
    }
}
