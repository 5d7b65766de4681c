//! The conditional logit, by Newton's method.

/// The precision of the Gaussian prior on each weight: it matters only where the cases do not determine the weight.
const PRIOR_PRECISION: f64 = 0.1;
/// Far more steps than a convex problem of this size needs.
const MAX_STEPS: usize = 100;
/// Convergence: the loss decreases by less than this.
const LOSS_TOLERANCE: f64 = 1e-9;

/// Cases to fit to.
pub(super) struct LogitProblem {
    pub(super) parameters: usize,
    pub(super) cases: Vec<CaseFeatures>,
}

/// The features of each alternative, and the index of the correct one.
pub(super) struct CaseFeatures {
    pub(super) rows: Vec<Vec<f64>>,
    pub(super) correct: usize,
}

impl CaseFeatures {
    pub(super) fn logits(&self, weights: &[f64]) -> Vec<f64> {
        self.rows.iter().map(|row| row.iter().zip(weights).map(|(x, w)| x * w).sum()).collect()
    }
}

impl LogitProblem {
    /// The weights of maximum likelihood (with the prior).
    pub(super) fn solve(&self) -> Vec<f64> {
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

/// The probabilities of logits.
pub(super) fn softmax(logits: &[f64], temperature: f64) -> Vec<f64> {
    let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = logits.iter().map(|logit| ((logit - max) / temperature).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}
