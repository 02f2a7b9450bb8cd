//! Tango's sizes and offsets, row by row, against tables computed by an independent program from the paper's recurrences
//! (Carton & Mesaros, Euro-Par 2004).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use p2ps::core::geometry::tango_steps;

#[test]
fn asymmetric_tables_agree_with_every_golden_row() {
    assert_eq!(check(include_str!("golden/tango-asymmetric.csv"), false), 167);
}

#[test]
fn symmetric_tables_agree_with_every_golden_row() {
    assert_eq!(check(include_str!("golden/tango-symmetric.csv"), true), 129);
}

/// Checks all rows (`k,max_hops,links,size,offsets_of_this_step`) and returns how many there were.
fn check(csv: &str, symmetric: bool) -> usize {
    let mut rows = 0;
    for line in csv.lines().skip(1) {
        let cells: Vec<&str> = line.split(',').collect();
        let number = |cell: usize| cells[cell].parse::<u128>().unwrap();
        let (k, hops) = (number(0) as u16, number(1) as usize);
        let steps: Vec<_> = tango_steps(k, symmetric).take(hops).collect();
        let links: usize = steps.iter().map(|step| step.clockwise.len() + step.counter_clockwise.len()).sum();
        let step = &steps[hops - 1];
        let offsets: Vec<u128> = cells[4].split(' ').map(|offset| offset.parse().unwrap()).collect();
        assert_eq!(links as u128, number(2), "links of {line}");
        assert_eq!(step.size, number(3), "size of {line}");
        assert_eq!(step.clockwise, offsets, "offsets of {line}");
        assert_eq!(step.counter_clockwise, if symmetric { offsets } else { vec![] }, "offsets of {line}");
        rows += 1;
    }
    rows
}
