//! A linear classifier over the embeddings of all texts: ridge regression onto the classes, which are the candidates and the
//! background. It is solved in closed form whenever the candidates change, which takes a fraction of a second.

use super::nearest::Vector;

/// The strength of the regularisation: one text's worth, so that a class of few texts is not learned by heart.
const RIDGE: f64 = 1.0;
/// Texts that are learned from: the sums over them take longest. Each class gives the same number at most.
const MAX_TEXTS: usize = 8_192;
/// The largest vectors: solving grows with the cube of their length.
const MAX_LENGTH: usize = 1_536;

/// Weights of each class.
pub(super) struct Linear {
    mean: Vec<f64>,
    classes: Vec<Class>,
}

struct Class {
    weights: Vec<f64>,
    /// The class's share of all texts, which is what it scores for the mean text.
    share: f64,
}

impl Linear {
    /// `None` where there is nothing to tell apart, or the vectors are too long.
    pub(super) fn fit(classes: &[&[Vector]]) -> Option<Self> {
        let most = (MAX_TEXTS / classes.len().max(1)).max(1);
        let classes: Vec<&[Vector]> = classes.iter().map(|texts| &texts[..texts.len().min(most)]).collect();
        let all = || classes.iter().copied().flatten();
        let length = all().next()?.len();
        let count = all().count() as f64;
        if length > MAX_LENGTH || all().any(|vector| vector.len() != length) {
            return None;
        }
        let mut mean = vec![0.0; length];
        all().for_each(|vector| add(&mut mean, vector, 1.0 / count));
        let factor = Factor::of(covariance(all(), &mean))?;
        let class = |texts: &&[Vector]| {
            let mut weights = vec![0.0; length];
            texts.iter().for_each(|vector| add(&mut weights, vector, 1.0));
            weights.iter_mut().zip(&mean).for_each(|(sum, mean)| *sum -= mean * texts.len() as f64);
            factor.solve(&mut weights);
            Class { weights, share: texts.len() as f64 / count }
        };
        let classes = classes.iter().map(class).collect();
        Some(Self { mean, classes })
    }

    /// The score of each class; about 1 for a class that is sure, about 0 for the others.
    pub(super) fn scores(&self, question: &[f32]) -> Vec<f64> {
        let score = |class: &Class| {
            let parts = class.weights.iter().zip(&self.mean).zip(question);
            class.share + parts.map(|((weight, mean), x)| weight * (f64::from(*x) - mean)).sum::<f64>()
        };
        self.classes.iter().map(score).collect()
    }
}

fn add(sum: &mut [f64], vector: &[f32], times: f64) {
    sum.iter_mut().zip(vector).for_each(|(sum, x)| *sum += f64::from(*x) * times);
}

/// The lower half of the sum of the outer products of what differs from the mean, with the ridge on its diagonal.
fn covariance<'v>(vectors: impl Iterator<Item = &'v Vector>, mean: &[f64]) -> Vec<Vec<f64>> {
    let mut sum: Vec<Vec<f64>> = (1..=mean.len()).map(|length| vec![0.0; length]).collect();
    for vector in vectors {
        let x: Vec<f64> = vector.iter().zip(mean).map(|(x, mean)| f64::from(*x) - mean).collect();
        for (row, x_row) in sum.iter_mut().zip(&x) {
            row.iter_mut().zip(&x).for_each(|(cell, x_column)| *cell += x_row * x_column);
        }
    }
    sum.iter_mut().for_each(|row| *row.last_mut().expect("no row is empty") += RIDGE);
    sum
}

/// A Cholesky factor, by rows of the lower triangle.
struct Factor(Vec<Vec<f64>>);

impl Factor {
    /// `None` for a matrix that is not positive definite, as one with numbers that are none.
    fn of(mut a: Vec<Vec<f64>>) -> Option<Self> {
        for i in 0..a.len() {
            let (done, rest) = a.split_at_mut(i);
            let row = &mut rest[0];
            for (j, before) in done.iter().enumerate() {
                let known: f64 = row[..j].iter().zip(before).map(|(x, y)| x * y).sum();
                row[j] = (row[j] - known) / before[j];
            }
            let left = row[i] - row[..i].iter().map(|x| x * x).sum::<f64>();
            if left.is_nan() || left <= 0.0 {
                return None;
            }
            row[i] = left.sqrt();
        }
        Some(Self(a))
    }

    /// Puts the solution in the place of the right-hand side.
    fn solve(&self, b: &mut [f64]) {
        for (i, row) in self.0.iter().enumerate() {
            let known: f64 = row[..i].iter().zip(&*b).map(|(x, y)| x * y).sum();
            b[i] = (b[i] - known) / row[i];
        }
        for (i, row) in self.0.iter().enumerate().rev() {
            b[i] /= row[i];
            let solved = b[i];
            b.iter_mut().zip(&row[..i]).for_each(|(left, x)| *left -= x * solved);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vectors(texts: &[[f32; 3]]) -> Vec<Vector> {
        texts.iter().map(|text| text.as_slice().into()).collect()
    }

    #[test]
    fn a_question_goes_to_the_class_on_its_side() {
        let (left, right) = (vectors(&[[1.0, 0.0, 0.1]; 20]), vectors(&[[0.0, 1.0, 0.1]; 20]));
        let linear = Linear::fit(&[&left, &right, &[]]).unwrap();
        let scores = linear.scores(&[0.9, 0.1, 0.1]);
        assert!(scores[0] > 0.7 && scores[1] < 0.3 && scores[2].abs() < 1e-9, "{scores:?}");
    }

    #[test]
    fn the_solution_solves() {
        let a = vec![vec![4.0], vec![2.0, 5.0], vec![1.0, 3.0, 6.0]];
        let mut b = vec![1.0, 2.0, 3.0];
        Factor::of(a).unwrap().solve(&mut b);
        for (row, expected) in [[4.0, 2.0, 1.0], [2.0, 5.0, 3.0], [1.0, 3.0, 6.0]].iter().zip([1.0, 2.0, 3.0]) {
            let got: f64 = row.iter().zip(&b).map(|(x, y)| x * y).sum();
            assert!((got - expected).abs() < 1e-9);
        }
    }

    #[test]
    fn what_cannot_be_learned_from_is_left_alone() {
        assert!(Linear::fit(&[]).is_none());
        assert!(Linear::fit(&[&[], &[]]).is_none());
        assert!(Linear::fit(&[&vectors(&[[f32::NAN, 0.0, 0.0]])]).is_none());
    }
}
