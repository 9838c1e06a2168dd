//! What survives: a killed process, a lost power supply, any order of commits and restarts.

mod disk;
mod failing;
mod kill;
mod model;
mod power_loss;
