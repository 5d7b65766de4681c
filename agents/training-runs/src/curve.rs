//! The loss of a training over its steps, thinned.

/// Points that are kept: as many as a picture of it has pixels, about. There are half as many at least, once there were so many.
const MAX_POINTS: usize = 512;

/// The mean loss of some steps that follow each other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LossPoint {
    /// The last of these steps.
    pub step: u64,
    /// Their mean loss, in nats per token.
    pub loss: f64,
}

/// A curve that keeps a bounded number of points, each the mean of equally many steps.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LossCurve {
    points: Vec<LossPoint>,
    /// Steps of a point.
    stride: u64,
    /// The sum and the number of the steps behind the last point.
    pending: (f64, u64),
    /// The last step.
    last_step: u64,
}

impl Default for LossCurve {
    fn default() -> Self {
        Self { points: Vec::new(), stride: 1, pending: (0.0, 0), last_step: 0 }
    }
}

impl LossCurve {
    /// Adds the loss of the next step. Steps that are there already, since a training went on from a checkpoint before them, are taken
    /// out first.
    pub(crate) fn push(&mut self, step: u64, loss: f64) {
        if step <= self.last_step {
            self.points.retain(|point| point.step < step);
            self.pending = (0.0, 0);
        }
        self.last_step = step;
        if !loss.is_finite() {
            return;
        }
        self.pending = (self.pending.0 + loss, self.pending.1 + 1);
        if self.pending.1 < self.stride {
            return;
        }
        let (sum, count) = std::mem::take(&mut self.pending);
        self.points.push(LossPoint { step, loss: sum / count as f64 });
        if self.points.len() == MAX_POINTS {
            let pairs = self.points.chunks(2);
            let mean = |pair: &[LossPoint]| LossPoint {
                step: pair[pair.len() - 1].step,
                loss: pair.iter().map(|point| point.loss).sum::<f64>() / pair.len() as f64,
            };
            self.points = pairs.map(mean).collect();
            self.stride *= 2;
        }
    }

    pub(crate) fn points(&self) -> &[LossPoint] {
        &self.points
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_curve_is_thinned_and_keeps_its_mean() {
        let mut curve = LossCurve::default();
        (1..=10_000).for_each(|step| curve.push(step, step as f64));
        let points = curve.points();
        assert!((MAX_POINTS / 2..MAX_POINTS).contains(&points.len()), "{}", points.len());
        assert!(points.windows(2).all(|two| two[0].step < two[1].step));
        // The mean of the first steps is in the middle of them.
        let first = points[0];
        assert!((first.loss - (first.step as f64 + 1.0) / 2.0).abs() < 1e-9, "{first:?}");
    }

    #[test]
    fn a_step_between_two_points_counts_once_if_it_is_taken_again() {
        let mut curve = LossCurve::default();
        (1..=MAX_POINTS as u64 + 1).for_each(|step| curve.push(step, 1.0));
        assert_eq!((curve.stride, curve.pending), (2, (1.0, 1)));
        let again = MAX_POINTS as u64 + 1;
        (again..=again + 1).for_each(|step| curve.push(step, 3.0));
        assert_eq!(curve.points().last(), Some(&LossPoint { step: again + 1, loss: 3.0 }));
    }

    #[test]
    fn steps_that_are_taken_again_replace_those_before() {
        let mut curve = LossCurve::default();
        (1..=10).for_each(|step| curve.push(step, 1.0));
        (8..=12).for_each(|step| curve.push(step, 2.0));
        curve.push(13, f64::NAN);
        let losses: Vec<(u64, f64)> = curve.points().iter().map(|point| (point.step, point.loss)).collect();
        assert_eq!(losses[6..], [(7, 1.0), (8, 2.0), (9, 2.0), (10, 2.0), (11, 2.0), (12, 2.0)]);
    }
}
