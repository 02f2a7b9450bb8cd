//! What can be said of a few repeated measurements.

/// Student's t for a two-sided 95% interval, by degrees of freedom from 1 on; beyond the table it is taken for normal.
const T_95: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
];

/// Half of the width of the 95% confidence interval of the mean of `values` (Student's t); 0 where there are fewer than two.
pub fn interval_95(values: &[f64]) -> f64 {
    let count = values.len();
    if count < 2 {
        return 0.0;
    }
    let mean = values.iter().sum::<f64>() / count as f64;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1) as f64;
    T_95.get(count - 2).copied().unwrap_or(1.96) * (variance / count as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use super::interval_95;

    #[test]
    fn the_interval_is_students() {
        // Deviation 1, four values: 3.182 / 2.
        assert!((interval_95(&[-1.0, -1.0, 1.0, 1.0]) - 3.182 * (4.0f64 / 3.0).sqrt() / 2.0).abs() < 1e-9);
        assert_eq!((interval_95(&[5.0]), interval_95(&[5.0, 5.0, 5.0])), (0.0, 0.0));
    }
}
