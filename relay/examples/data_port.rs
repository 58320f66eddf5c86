//! A data port alone, for measurements: prints its port, then for each line of input the tokens of a new channel.

use std::time::Duration;

use meshwork_host::supervise::Supervisor;
use meshwork_protocol::id::DeviceId;
use meshwork_relay::data::{DataConfig, DataPort};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = DataConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        unpaired: 1_024,
        unpaired_per_ip: 1_024,
        pairs: 1_024,
        idle: Duration::from_secs(60),
        device_rate: 0,
        total_rate: 0,
        monthly_bytes: 0,
        budget_file: None,
    };
    let port = DataPort::bind(config).await?;
    println!("{}", port.address()?.port());
    let (handle, supervisor) = (port.handle(), Supervisor::new());
    tokio::spawn(port.serve(supervisor.stop()));
    let asked = tokio::task::spawn_blocking(move || -> Result<(), String> {
        for _ in std::io::stdin().lines() {
            let grant = handle.open(DeviceId([1; 32]), DeviceId([2; 32])).map_err(|refusal| refusal.to_string())?;
            let [a, b] = grant.tokens.map(|token| token.0.map(|byte| format!("{byte:02x}")).concat());
            println!("{a} {b}");
        }
        Ok(())
    });
    Ok(asked.await??)
}
