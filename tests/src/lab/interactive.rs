//! `cargo lab`: for a person who watches.

use std::time::Duration;

use anyhow::Result;

use super::args::{self, Dhcp};
use super::artifacts::Program;
use super::console::say;
use super::interrupt::Interrupt;
use super::run::{TEMPLATE, Watch, steps};
use super::world::{CLOUD_KERNEL, Wish, World};
use super::{forward, host, image, manifest, server};

/// Boots machines, shows them, and stays until Ctrl-C.
pub(crate) fn interactive(args: &args::Interactive, interrupt: &Interrupt) -> Result<()> {
    host::prepare(args.yes)?;
    let image = image::find_or_build(args.image, args.template, interrupt)?;
    let wish = Wish {
        machines: usize::from(args.machines),
        dhcp: Dhcp::Full,
        kernel: CLOUD_KERNEL,
        image: &image,
        keep: None,
        program: Program::Plain,
        capture: false,
        ..Wish::new(&image)
    };
    let world = World::build(&wish, interrupt)?;
    let mut machines = world.machines(wish.machines, args.firmware, Dhcp::Full)?;
    world.server.apply(&manifest::template(TEMPLATE, &steps(args.template, &image)))?;
    forward::start(args.port, world.namespace.door().clone(), server::address())?;
    let link = world.server.cli(&["login"])?;
    say(format_args!(
        "\nweb pages:    http://127.0.0.1:{}\nsign in:      {}\ncommand line: {} get machines\nstop:         Ctrl-C\n",
        args.port,
        on_host(link.trim(), args.port),
        world.server.command_line(args.port)
    ));
    for machine in &mut machines {
        machine.start(&world.namespace, world.accel, &world.timeline)?;
        say(format_args!("{} ({}, {}) is on", machine.name, machine.mac, machine.hardware.firmware.word()));
    }
    let mut watch = Watch::new(&machines, !args.no_assign);
    let mut told = false;
    while !interrupt.is_set() {
        watch.step(&world, &mut machines)?;
        if !told && watch.all_settled() {
            told = true;
            say(format_args!(
                "\nall machines are settled; the web pages stay at http://127.0.0.1:{} until Ctrl-C",
                args.port
            ));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    say("\nstopping");
    Ok(())
}

/// The sign-in link as it works on the host.
fn on_host(said: &str, port: u16) -> String {
    let link = said.split_whitespace().find(|word| word.contains("/login")).unwrap_or(said);
    match link.split_once("://").and_then(|(_, rest)| rest.split_once('/')) {
        Some((_, path)) => format!("http://127.0.0.1:{port}/{path}"),
        None => link.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_link_leads_to_the_forwarded_port() {
        for said in ["http://127.0.0.1:3000/login?once=ab", "open https://192.168.77.1:3000/login?once=ab now"] {
            assert_eq!(on_host(said, 3001), "http://127.0.0.1:3001/login?once=ab");
        }
    }
}
