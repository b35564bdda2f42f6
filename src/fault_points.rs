//! Places to die around every port call, for the tests of crashes.
//!
//! In: ports and consumers; `IM_FAULT_POINT`. Out: the same, with the points around them. Always: without the feature
//! `fault-points` nothing is added.

#[cfg(feature = "fault-points")]
pub use built_in::Points;
#[cfg(not(feature = "fault-points"))]
pub use left_out::Points;

#[cfg(feature = "fault-points")]
mod built_in {
    use crate::exit::Failure;
    use im_logic::Ports;
    use im_storage::fault::{FaultPoints, Faulty, FaultyConsumer};
    use im_storage::ports::Consumer;
    use std::sync::Arc;

    pub struct Points(Arc<FaultPoints>);

    impl Points {
        pub fn from_env() -> Result<Self, Failure> {
            let points = FaultPoints::from_env("IM_FAULT_POINT");
            points.map(Self).map_err(|error| Failure::Usage(format!("IM_FAULT_POINT: {error}")))
        }

        pub fn ports(&self, ports: Ports) -> Ports {
            Ports {
                queue: Faulty::new(ports.queue, self.0.clone()),
                log: Faulty::new(ports.log, self.0.clone()),
                directory: Faulty::new(ports.directory, self.0.clone()),
                inbox: Faulty::new(ports.inbox, self.0.clone()),
                routes: Faulty::new(ports.routes, self.0.clone()),
                delivery: Faulty::new(ports.delivery, self.0.clone()),
            }
        }

        pub fn consumer(&self, consumer: impl Consumer) -> Box<dyn Consumer> {
            Box::new(FaultyConsumer::new(consumer, self.0.clone()))
        }
    }
}

#[cfg(not(feature = "fault-points"))]
mod left_out {
    use crate::exit::Failure;
    use im_logic::Ports;
    use im_storage::ports::Consumer;

    pub struct Points;

    impl Points {
        pub fn from_env() -> Result<Self, Failure> {
            Ok(Self)
        }

        pub fn ports(&self, ports: Ports) -> Ports {
            ports
        }

        pub fn consumer(&self, consumer: impl Consumer) -> Box<dyn Consumer> {
            Box::new(consumer)
        }
    }
}
