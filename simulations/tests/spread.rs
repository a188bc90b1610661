//! What the simulation must show, and that it can show the opposite.

use std::time::Duration;

use cairn_simulations::network::{Options, run};

fn options(seed: u64) -> Options {
    Options {
        nodes: 1_000,
        degree: 8,
        seed,
        loss: 20_000,
        churn: 0,
        reconcile: true,
        partition: None,
        horizon: Duration::from_secs(10),
    }
}

#[test]
fn a_thousand_followers_have_a_head_in_three_seconds_for_twelve_messages_each() {
    for seed in 1..=4 {
        let report = run(&options(seed), None).expect("a run");
        println!("seed {seed}\n{report}");
        assert!(report.lost > 0, "no fault happened");
        assert_eq!(report.parted, 0);
        assert_eq!(report.complete, 999);
        assert!(report.all.expect("all have it") < Duration::from_secs(3));
        assert!(report.messages_per_node_hundredths() <= 1_200);
    }
}

#[test]
fn those_who_were_away_catch_up_by_comparison_and_by_nothing_else() {
    for seed in 1..=2 {
        let churning = Options {
            churn: 300_000,
            horizon: Duration::from_mins(2),
            ..options(seed)
        };
        let report = run(&churning, None).expect("a run");
        assert!(report.lost > 0, "no fault happened");
        assert_eq!((report.complete, report.parted), (999, 0));
        // The last ones come up 22 s after the publication.
        assert!(report.all.expect("all have it") < Duration::from_secs(30));

        let control = Options {
            reconcile: false,
            ..churning
        };
        let report = run(&control, None).expect("a run");
        assert!(report.lost > 0, "no fault happened");
        assert!(report.complete < 950, "{} of 999", report.complete);
        assert_eq!(report.all, None);
    }
}

#[test]
fn with_a_fifth_of_all_frames_lost_all_have_it_in_two_minutes() {
    let lossy = Options {
        loss: 200_000,
        churn: 300_000,
        horizon: Duration::from_mins(2),
        ..options(5)
    };
    let report = run(&lossy, None).expect("a run");
    assert_eq!((report.complete, report.parted), (999, 0));
    assert!(report.all.expect("all have it") < Duration::from_mins(2));
}

#[test]
fn both_parts_of_a_cut_network_agree_soon_after_it_is_joined() {
    for seed in 0..20 {
        let cut = Options {
            nodes: 5,
            degree: 3,
            partition: Some(Duration::from_secs(30 + 90 * seed)),
            horizon: Duration::from_mins(1),
            ..options(seed)
        };
        let report = run(&cut, None).expect("a run");
        assert_eq!((report.complete, report.parted), (3, 0), "seed {seed}");
        let half = report.half.expect("half have it");
        assert!(half > Duration::ZERO, "seed {seed}: nothing was cut");
        assert!(report.all.expect("all have it") < Duration::from_secs(30));
    }
}

#[test]
fn a_seed_gives_one_course_to_the_byte_and_another_seed_another() {
    let trace = |seed| {
        let churning = Options {
            nodes: 200,
            churn: 300_000,
            horizon: Duration::from_mins(1),
            ..options(seed)
        };
        let mut trace = Vec::new();
        let report = run(&churning, Some(&mut trace)).expect("a run");
        (trace, report)
    };
    let (one, report) = trace(7);
    assert!(one.len() > 100_000, "{} bytes", one.len());
    let (again, same) = trace(7);
    assert!(one == again, "the traces of one seed differ");
    assert_eq!(report, same);
    assert!(one != trace(8).0);
}
