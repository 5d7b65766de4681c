//! The conditional logit, by Newton's method.

use crate::probabilities::softmax;

/// The precision of the Gaussian prior on each weight: it matters only where the cases do not determine the weight.
const PRIOR_PRECISION: f64 = 0.1;
/// Far more steps than a convex problem of this size needs.
const MAX_STEPS: usize = 100;
/// Convergence: the loss decreases by less than this.
const LOSS_TOLERANCE: f64 = 1e-9;

/// Cases to fit to.
pub(crate) struct LogitProblem {
    pub(crate) parameters: usize,
    pub(crate) cases: Vec<CaseFeatures>,
}

/// The features of each alternative, and the index of the correct one.
pub(crate) struct CaseFeatures {
    pub(crate) rows: Vec<Vec<f64>>,
    pub(crate) correct: usize,
}

impl CaseFeatures {
    pub(crate) fn logits(&self, weights: &[f64]) -> Vec<f64> {
        self.rows.iter().map(|row| row.iter().zip(weights).map(|(x, w)| x * w).sum()).collect()
    }
}

impl LogitProblem {
    /// The weights of maximum likelihood (with the prior).
    pub(crate) fn solve(&self) -> Vec<f64> {
        let mut weights = vec![0.0; self.parameters];
        let mut loss = self.loss(&weights);
        for _ in 0..MAX_STEPS {
            let step = self.step(&weights);
            let mut length = 1.0;
            let (next, lower) = loop {
                let next: Vec<f64> = weights.iter().zip(&step).map(|(w, s)| w - length * s).collect();
                let lower = self.loss(&next);
                // A full Newton step may overshoot.
                if lower <= loss || length < 1e-6 {
                    break (next, lower);
                }
                length /= 2.0;
            };
            let has_converged = loss - lower < LOSS_TOLERANCE;
            if lower <= loss {
                (weights, loss) = (next, lower);
            }
            if has_converged {
                break;
            }
        }
        weights
    }

    fn loss(&self, weights: &[f64]) -> f64 {
        let case = |case: &CaseFeatures| -softmax(&case.logits(weights), 1.0)[case.correct].max(1e-300).ln();
        let prior = weights.iter().map(|w| w * w).sum::<f64>() * PRIOR_PRECISION / 2.0;
        self.cases.iter().map(case).sum::<f64>() + prior
    }

    /// The gradient through the inverse of the Hessian.
    fn step(&self, weights: &[f64]) -> Vec<f64> {
        let n = self.parameters;
        let mut gradient: Vec<f64> = weights.iter().map(|w| w * PRIOR_PRECISION).collect();
        let mut hessian: Vec<Vec<f64>> =
            (0..n).map(|i| (0..n).map(|j| if i == j { PRIOR_PRECISION } else { 0.0 }).collect()).collect();
        for case in &self.cases {
            let probabilities = softmax(&case.logits(weights), 1.0);
            let mean: Vec<f64> =
                (0..n).map(|i| case.rows.iter().zip(&probabilities).map(|(row, p)| row[i] * p).sum()).collect();
            for i in 0..n {
                gradient[i] += mean[i] - case.rows[case.correct][i];
                for (j, cell) in hessian[i].iter_mut().enumerate() {
                    let both: f64 = case.rows.iter().zip(&probabilities).map(|(row, p)| row[i] * row[j] * p).sum();
                    *cell += both - mean[i] * mean[j];
                }
            }
        }
        eliminate(hessian, gradient)
    }
}

/// Solves a small positive definite system by Gaussian elimination; the prior keeps every pivot above 0.
fn eliminate(mut a: Vec<Vec<f64>>, mut b: Vec<f64>) -> Vec<f64> {
    let n = b.len();
    for i in 0..n {
        for k in i + 1..n {
            let times = a[k][i] / a[i][i];
            let (above, below) = a.split_at_mut(k);
            below[0].iter_mut().zip(&above[i]).for_each(|(x, y)| *x -= times * y);
            b[k] -= times * b[i];
        }
    }
    for i in (0..n).rev() {
        let known: f64 = (i + 1..n).map(|j| a[i][j] * b[j]).sum();
        b[i] = (b[i] - known) / a[i][i];
    }
    b
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_solution_solves_the_system() {
        let (a, b) = (vec![vec![4.0, 2.0, 1.0], vec![2.0, 5.0, 3.0], vec![1.0, 3.0, 6.0]], vec![1.0, 2.0, 3.0]);
        let solution = eliminate(a.clone(), b.clone());
        for (row, expected) in a.iter().zip(b) {
            let got: f64 = row.iter().zip(&solution).map(|(x, y)| x * y).sum();
            assert!((got - expected).abs() < 1e-9, "{solution:?}");
        }
    }

    /// Two alternatives, of which the first has this feature and the second has none.
    fn case(feature: f64, correct: usize) -> CaseFeatures {
        CaseFeatures { rows: vec![vec![feature], vec![0.0]], correct }
    }

    #[test]
    fn odds_of_three_to_one_are_the_logarithm_of_three() {
        let cases = (0..4_000).map(|n| case(1.0, usize::from(n % 4 == 0))).collect();
        let weights = LogitProblem { parameters: 1, cases }.solve();
        // The prior pulls a little towards 0.
        assert!((weights[0] - 3f64.ln()).abs() < 1e-3, "{weights:?}");
    }

    #[test]
    fn cases_that_a_weight_separates_leave_it_finite() {
        let cases = (0..100).map(|_| case(1.0, 0)).collect();
        let weights = LogitProblem { parameters: 1, cases }.solve();
        assert!(weights[0] > 1.0 && weights[0] < 100.0, "{weights:?}");
        assert_eq!(LogitProblem { parameters: 2, cases: Vec::new() }.solve(), [0.0, 0.0]);
    }

    proptest! {
        #[test]
        fn no_other_weights_have_a_lower_loss(
            cases in prop::collection::vec((prop::collection::vec(-3.0..3.0f64, 6), 0..3usize), 1..30),
            other in prop::collection::vec(-5.0..5.0f64, 2),
        ) {
            let case = |(features, correct): (Vec<f64>, usize)| {
                CaseFeatures { rows: features.chunks(2).map(<[f64]>::to_vec).collect(), correct }
            };
            let problem = LogitProblem { parameters: 2, cases: cases.into_iter().map(case).collect() };
            prop_assert!(problem.loss(&problem.solve()) <= problem.loss(&other) + 1e-6);
        }
    }
}
