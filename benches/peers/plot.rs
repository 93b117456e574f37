//! Draws time over the number of threads as SVG: a handful of lines and words, which is no reason for a library.

use std::fmt::Write;

use crate::results::{Curve, median};

/// Pixels. The plot's own place leaves margins for numbers and, at the right, for the curves' names.
const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 400.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = 50.0;

/// One for each curve; they can be told apart in grey, too.
const COLOURS: [&str; 4] = ["#1f5fa8", "#c8442a", "#3a8a4d", "#7a4fa0"];

/// About so many lines across.
const TICKS: f64 = 6.0;

/// Names closer than that would overlap.
const LINE_HEIGHT: f64 = 16.0;

/// Draws the medians, with bars from the fastest to the slowest round; times of `cp` are dashed lines.
pub fn draw(title: &str, subtitle: &str, curves: &[Curve]) -> String {
    let times = curves.iter().flat_map(|curve| {
        let points = curve.points.iter().flat_map(|(_, times)| times);
        points.chain(&curve.cp).copied()
    });
    let threads = curves
        .iter()
        .flat_map(|curve| curve.points.iter().map(|&(n, _)| n));
    let mut plot = Plot {
        svg: String::new(),
        slowest: times.fold(0.0, f64::max).max(f64::MIN_POSITIVE),
        most_threads: threads.clone().max().unwrap_or(1).max(2) as f64,
        names: Vec::new(),
    };
    plot.put(format_args!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>"
    ));
    plot.text(LEFT, 20.0, "start", "#222", title);
    plot.text(LEFT, 37.0, "start", "#777", subtitle);
    let mut ticks: Vec<usize> = threads.collect();
    ticks.sort_unstable();
    ticks.dedup();
    plot.axes(&ticks);
    for (curve, colour) in curves.iter().zip(COLOURS.iter().cycle()) {
        plot.curve(curve, colour);
    }
    plot.name_curves();
    plot.put(format_args!("</svg>"));
    plot.svg
}

struct Plot {
    svg: String,
    /// Seconds.
    slowest: f64,
    most_threads: f64,
    /// Where a line ends, its name and its colour.
    names: Vec<(f64, String, String)>,
}

impl Plot {
    /// Threads double from tick to tick.
    fn x(&self, threads: usize) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * (threads as f64).log2() / self.most_threads.log2()
    }

    /// The axis begins at zero: half the height is half the time.
    fn y(&self, seconds: f64) -> f64 {
        HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * seconds / self.slowest
    }

    fn axes(&mut self, threads: &[usize]) {
        let step = round_step(self.slowest / TICKS);
        let mut number = 0.0;
        while number * step <= self.slowest {
            let y = self.y(number * step);
            self.line(LEFT, y, WIDTH - RIGHT, y, "stroke=\"#ddd\"");
            let places = (-step.log10().floor()).max(0.0) as usize;
            let label = format!("{:.places$}", number * step);
            self.text(LEFT - 6.0, y + 4.0, "end", "#444", &label);
            number += 1.0;
        }
        for &number in threads {
            let x = self.x(number);
            self.text(
                x,
                HEIGHT - BOTTOM + 18.0,
                "middle",
                "#444",
                &number.to_string(),
            );
        }
        let middle = f64::midpoint(LEFT, WIDTH - RIGHT);
        self.text(middle, HEIGHT - 12.0, "middle", "#444", "threads (-j)");
        self.text(LEFT - 6.0, TOP - 6.0, "end", "#444", "seconds");
    }

    fn curve(&mut self, curve: &Curve, colour: &str) {
        let mut path = String::new();
        let mut end = self.y(0.0);
        for (threads, times) in &curve.points {
            let (x, y) = (self.x(*threads), self.y(median(times)));
            end = y;
            // A string takes everything.
            let _ = write!(
                path,
                "{}{x:.1},{y:.1}",
                if path.is_empty() { "M" } else { " L" }
            );
            let bound = |pick: fn(f64, f64) -> f64| times.iter().copied().reduce(pick);
            if let (Some(fastest), Some(slowest)) = (bound(f64::min), bound(f64::max)) {
                let style = format!("stroke=\"{colour}\" stroke-opacity=\"0.5\"");
                self.line(x, self.y(fastest), x, self.y(slowest), &style);
            }
            self.put(format_args!(
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>"
            ));
        }
        self.put(format_args!(
            "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>"
        ));
        self.names
            .push((end, format!("poolcp, {}", curve.name), colour.to_owned()));
        if !curve.cp.is_empty() {
            let y = self.y(median(&curve.cp));
            let style = format!("stroke=\"{colour}\" stroke-dasharray=\"5 4\"");
            self.line(LEFT, y, WIDTH - RIGHT, y, &style);
            self.names
                .push((y, format!("cp, {}", curve.name), colour.to_owned()));
        }
    }

    /// Beside where they end, moved apart where they would overlap.
    fn name_curves(&mut self) {
        let mut names = std::mem::take(&mut self.names);
        names.sort_by(|a, b| a.0.total_cmp(&b.0));
        // From the bottom up: the axis is there.
        let mut lowest = HEIGHT - BOTTOM;
        for (y, name, colour) in names.into_iter().rev() {
            let y = y.min(lowest);
            lowest = y - LINE_HEIGHT;
            self.text(WIDTH - RIGHT + 8.0, y + 4.0, "start", &colour, &name);
        }
    }

    fn line(&mut self, x1: f64, y1: f64, x2: f64, y2: f64, style: &str) {
        self.put(format_args!(
            "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" {style}/>"
        ));
    }

    fn text(&mut self, x: f64, y: f64, anchor: &str, colour: &str, text: &str) {
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        self.put(format_args!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{colour}\">{text}</text>"
        ));
    }

    fn put(&mut self, element: std::fmt::Arguments) {
        let _ = writeln!(self.svg, "{element}");
    }
}

/// 1, 2 or 5 times a power of ten: the smallest of those that is not below.
fn round_step(step: f64) -> f64 {
    let power = 10_f64.powf(step.log10().floor());
    let factors = [1.0, 2.0, 5.0, 10.0];
    let factor = factors.into_iter().find(|factor| factor * power >= step);
    factor.unwrap_or(10.0) * power
}
