//! Properties of the pure parts, for values at random.

mod machine;
mod narrowing;
mod strategies;
mod values;

use proptest::prelude::*;
use voicecall::domain::Timestamp;

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: 2000,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

fn any_time() -> impl Strategy<Value = Timestamp> {
    (Timestamp::MIN.micros()..=Timestamp::MAX.micros())
        .prop_map(|micros| Timestamp::from_micros(micros).expect("in range"))
}
