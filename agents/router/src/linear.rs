//! The linear signal: ridge regression from the embeddings of all texts onto the classes, which are the candidates and the
//! background. It is solved in closed form whenever the candidates change, which is fast enough for that.

use crate::embedding::Embedding;

/// The strength of the regularisation, as that of one text: it keeps a class of few texts from being overfitted.
const RIDGE_FACTOR: f64 = 1.0;
/// Texts of the fit: the sums over them take longest. Each class contributes the same number at most.
const MAX_TEXTS: usize = 8_192;
/// The longest embeddings: the cost of the solution grows with the cube of their length.
const MAX_DIMENSIONS: usize = 1_536;

/// The weights of each class.
pub(crate) struct LinearClassifier {
    mean: Vec<f64>,
    classes: Vec<ClassWeights>,
}

struct ClassWeights {
    weights: Vec<f64>,
    /// The class's share of all texts, which is its score for the mean embedding.
    share: f64,
}

impl LinearClassifier {
    /// `None` if there are no texts, or the embeddings are too long or of different lengths.
    pub(crate) fn fit(classes: &[&[Embedding]]) -> Option<Self> {
        let max_texts = (MAX_TEXTS / classes.len().max(1)).max(1);
        let classes: Vec<&[Embedding]> = classes.iter().map(|texts| &texts[..texts.len().min(max_texts)]).collect();
        let all = || classes.iter().copied().flatten();
        let dimensions = all().next()?.len();
        let count = all().count() as f64;
        if dimensions > MAX_DIMENSIONS || all().any(|embedding| embedding.len() != dimensions) {
            return None;
        }
        let mut mean = vec![0.0; dimensions];
        all().for_each(|embedding| add(&mut mean, embedding, 1.0 / count));
        let factor = CholeskyFactor::new(covariance(all(), &mean))?;
        let class = |texts: &&[Embedding]| {
            let mut weights = vec![0.0; dimensions];
            texts.iter().for_each(|embedding| add(&mut weights, embedding, 1.0));
            weights.iter_mut().zip(&mean).for_each(|(sum, mean)| *sum -= mean * texts.len() as f64);
            factor.solve(&mut weights);
            ClassWeights { weights, share: texts.len() as f64 / count }
        };
        let classes = classes.iter().map(class).collect();
        Some(Self { mean, classes })
    }

    /// The score of each class; about 1 for a certain class, about 0 for the others.
    pub(crate) fn scores(&self, question: &[f32]) -> Vec<f64> {
        let score = |class: &ClassWeights| {
            let parts = class.weights.iter().zip(&self.mean).zip(question);
            class.share + parts.map(|((weight, mean), x)| weight * (f64::from(*x) - mean)).sum::<f64>()
        };
        self.classes.iter().map(score).collect()
    }
}

fn add(sum: &mut [f64], embedding: &[f32], factor: f64) {
    sum.iter_mut().zip(embedding).for_each(|(sum, x)| *sum += f64::from(*x) * factor);
}

/// The lower half of the sum of the outer products of the deviations from the mean, with the ridge on its diagonal.
fn covariance<'e>(embeddings: impl Iterator<Item = &'e Embedding>, mean: &[f64]) -> Vec<Vec<f64>> {
    let mut sum: Vec<Vec<f64>> = (1..=mean.len()).map(|length| vec![0.0; length]).collect();
    for embedding in embeddings {
        let x: Vec<f64> = embedding.iter().zip(mean).map(|(x, mean)| f64::from(*x) - mean).collect();
        for (row, x_row) in sum.iter_mut().zip(&x) {
            row.iter_mut().zip(&x).for_each(|(cell, x_column)| *cell += x_row * x_column);
        }
    }
    sum.iter_mut().for_each(|row| *row.last_mut().expect("no row is empty") += RIDGE_FACTOR);
    sum
}

/// A Cholesky factor, by rows of the lower triangle.
struct CholeskyFactor(Vec<Vec<f64>>);

impl CholeskyFactor {
    /// `None` for a matrix that is not positive definite, such as one with NaN.
    fn new(mut a: Vec<Vec<f64>>) -> Option<Self> {
        for i in 0..a.len() {
            let (done, rest) = a.split_at_mut(i);
            let row = &mut rest[0];
            for (j, before) in done.iter().enumerate() {
                let known: f64 = row[..j].iter().zip(before).map(|(x, y)| x * y).sum();
                row[j] = (row[j] - known) / before[j];
            }
            let pivot = row[i] - row[..i].iter().map(|x| x * x).sum::<f64>();
            if pivot.is_nan() || pivot <= 0.0 {
                return None;
            }
            row[i] = pivot.sqrt();
        }
        Some(Self(a))
    }

    /// Replaces the right-hand side with the solution.
    fn solve(&self, b: &mut [f64]) {
        for (i, row) in self.0.iter().enumerate() {
            let known: f64 = row[..i].iter().zip(&*b).map(|(x, y)| x * y).sum();
            b[i] = (b[i] - known) / row[i];
        }
        for (i, row) in self.0.iter().enumerate().rev() {
            b[i] /= row[i];
            let solved = b[i];
            b.iter_mut().zip(&row[..i]).for_each(|(rest, x)| *rest -= x * solved);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn embeddings(texts: &[[f32; 3]]) -> Vec<Embedding> {
        texts.iter().map(|text| text.as_slice().into()).collect()
    }

    #[test]
    fn a_question_goes_to_the_class_on_its_side() {
        let (left, right) = (embeddings(&[[1.0, 0.0, 0.1]; 20]), embeddings(&[[0.0, 1.0, 0.1]; 20]));
        let linear = LinearClassifier::fit(&[&left, &right, &[]]).unwrap();
        let scores = linear.scores(&[0.9, 0.1, 0.1]);
        assert!(scores[0] > 0.7 && scores[1] < 0.3 && scores[2].abs() < 1e-9, "{scores:?}");
    }

    #[test]
    fn the_solution_solves_the_system() {
        let a = vec![vec![4.0], vec![2.0, 5.0], vec![1.0, 3.0, 6.0]];
        let mut b = vec![1.0, 2.0, 3.0];
        CholeskyFactor::new(a).unwrap().solve(&mut b);
        for (row, expected) in [[4.0, 2.0, 1.0], [2.0, 5.0, 3.0], [1.0, 3.0, 6.0]].iter().zip([1.0, 2.0, 3.0]) {
            let got: f64 = row.iter().zip(&b).map(|(x, y)| x * y).sum();
            assert!((got - expected).abs() < 1e-9);
        }
    }

    #[test]
    fn nothing_is_fitted_without_texts_or_with_nan() {
        assert!(LinearClassifier::fit(&[]).is_none());
        assert!(LinearClassifier::fit(&[&[], &[]]).is_none());
        assert!(LinearClassifier::fit(&[&embeddings(&[[f32::NAN, 0.0, 0.0]])]).is_none());
    }
}
