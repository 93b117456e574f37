//! Draws lines over the number of threads as SVG: a handful of lines and words, which is no reason for a library.
//!
//! A chart has one panel or several side by side, which share their scale. It brings its own ground, so that it looks the same
//! on a white page and on a dark one.

use std::fmt::Write;

/// A picture.
pub struct Chart {
    pub title: String,
    pub subtitle: String,
    /// What the numbers are.
    pub unit: &'static str,
    /// A dashed line shows what as many times as many threads would bring at best; then the numbers are speed-ups.
    pub ideal: bool,
    pub panels: Vec<Panel>,
}

/// A part of a picture.
pub struct Panel {
    /// Nothing, if there is only one.
    pub name: String,
    pub curves: Vec<Curve>,
}

/// A line through what was measured.
pub struct Curve {
    pub name: String,
    /// Numbers of threads, the least first, and what was measured with so many.
    pub points: Vec<(usize, Spread)>,
    /// What to compare it with, that does not depend on the number of threads: names and numbers.
    pub levels: Vec<(String, f64)>,
}

/// The middle of several measurements, and how far they go to both sides.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    pub low: f64,
    pub middle: f64,
    pub high: f64,
}

/// Pixels. A panel's own place leaves margins for numbers and, at the right, for the curves' names.
const WIDTH: f64 = 920.0;
const HEIGHT: f64 = 434.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 118.0;
const TOP: f64 = 106.0;
const BOTTOM: f64 = 56.0;

/// One for each curve; they can be told apart in grey, too.
const COLOURS: [&str; 4] = ["#1f5fa8", "#c8442a", "#3a8a4d", "#7a4fa0"];

/// About so many lines across.
const TICKS: f64 = 6.0;

/// Names closer than that would overlap.
const LINE_HEIGHT: f64 = 17.0;

impl Chart {
    /// The picture as SVG.
    pub fn draw(&self) -> String {
        let curves = || self.panels.iter().flat_map(|panel| &panel.curves);
        let points = || curves().flat_map(|curve| &curve.points);
        let levels = curves().flat_map(|curve| &curve.levels);
        let numbers = points()
            .map(|(_, spread)| spread.high)
            .chain(levels.map(|(_, number)| *number));
        let mut ticks: Vec<usize> = points().map(|(threads, _)| *threads).collect();
        ticks.sort_unstable();
        ticks.dedup();
        let highest = numbers.fold(0.0, f64::max).max(f64::MIN_POSITIVE);
        let step = round_step(highest / TICKS);
        let mut picture = Picture {
            svg: String::new(),
            step,
            // Up to the next line across, so that the highest point has one above it.
            top: (highest / step).ceil() * step,
            ticks,
            left: LEFT,
            right: LEFT,
            names: Vec::new(),
        };
        picture.put(format_args!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             font-family=\"Helvetica, Arial, sans-serif\" font-size=\"12\">\n\
             <rect x=\"0.5\" y=\"0.5\" width=\"{}\" height=\"{}\" rx=\"8\" fill=\"#ffffff\" \
             stroke=\"#d0d0d0\"/>",
            WIDTH - 1.0,
            HEIGHT - 1.0
        ));
        picture.title(&self.title);
        picture.text(LEFT - 30.0, 48.0, "start", "#666", &self.subtitle);
        let width = WIDTH / self.panels.len().max(1) as f64;
        for (number, panel) in self.panels.iter().enumerate() {
            picture.left = width * number as f64 + LEFT;
            picture.right = width * (number + 1) as f64 - RIGHT;
            picture.axes(self.unit, &panel.name);
            if self.ideal {
                picture.ideal();
            }
            for (curve, colour) in panel.curves.iter().zip(COLOURS.iter().cycle()) {
                picture.curve(curve, colour);
            }
            picture.name_curves();
        }
        picture.put(format_args!("</svg>"));
        picture.svg
    }
}

/// A picture while it is drawn.
struct Picture {
    svg: String,
    /// Between two lines across.
    step: f64,
    /// The number at the upper edge.
    top: f64,
    /// Numbers of threads.
    ticks: Vec<usize>,
    /// The edges of the present panel's own place.
    left: f64,
    right: f64,
    /// Where a line ends, its name and its colour.
    names: Vec<(f64, String, String)>,
}

impl Picture {
    /// Threads double from tick to tick.
    fn x(&self, threads: f64) -> f64 {
        let first = self.ticks.first().map_or(1.0, |&first| first as f64);
        let last = self.ticks.last().map_or(2.0, |&last| last as f64);
        let part = (threads / first).log2() / (last / first).log2().max(1.0);
        self.left + (self.right - self.left) * part
    }

    /// The axis begins at zero: half the height is half the number.
    fn y(&self, number: f64) -> f64 {
        HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * number / self.top
    }

    fn title(&mut self, title: &str) {
        let x = LEFT - 30.0;
        self.put(format_args!(
            "<text x=\"{x}\" y=\"29\" fill=\"#222\" font-size=\"16\" font-weight=\"bold\">{}</text>",
            escaped(title)
        ));
    }

    fn axes(&mut self, unit: &str, name: &str) {
        let (left, right) = (self.left, self.right);
        let places = (-self.step.log10().floor()).max(0.0) as usize;
        let mut number = 0.0;
        while number * self.step <= self.top * 1.001 {
            let y = self.y(number * self.step);
            self.line(left, y, right, y, "stroke=\"#e2e2e2\"");
            let label = format!("{:.places$}", number * self.step);
            self.text(left - 7.0, y + 4.0, "end", "#555", &label);
            number += 1.0;
        }
        for number in self.ticks.clone() {
            let x = self.x(number as f64);
            let below = HEIGHT - BOTTOM;
            self.line(x, below, x, below + 4.0, "stroke=\"#aaa\"");
            self.text(x, below + 18.0, "middle", "#555", &number.to_string());
        }
        let middle = f64::midpoint(left, right);
        self.text(middle, HEIGHT - 16.0, "middle", "#555", "threads");
        self.text(left - 30.0, TOP - 28.0, "start", "#555", unit);
        self.text(right, TOP - 28.0, "end", "#222", name);
    }

    /// As many times as fast as there are times as many threads, to the edge that is met first.
    fn ideal(&mut self) {
        let first = self.ticks.first().map_or(1.0, |&first| first as f64);
        let last = self.ticks.last().map_or(2.0, |&last| last as f64);
        let most = (last / first).min(self.top);
        // Between numbers of threads that double, it is not straight.
        let points = (0..=40).map(|part| most.powf(f64::from(part) / 40.0));
        let points: Vec<_> = points
            .map(|times| (self.x(first * times), self.y(times)))
            .collect();
        let style = "stroke=\"#888\" stroke-width=\"1.5\" stroke-dasharray=\"6 4\"";
        self.path(&points, style);
        // Where it leaves, above everything.
        if let Some((x, y)) = points.last() {
            self.text(*x, y - 7.0, "middle", "#777", "ideal");
        }
    }

    fn curve(&mut self, curve: &Curve, colour: &str) {
        let mut points = Vec::new();
        for (threads, spread) in &curve.points {
            let (x, y) = (self.x(*threads as f64), self.y(spread.middle));
            points.push((x, y));
            let style = format!("stroke=\"{colour}\" stroke-opacity=\"0.45\" stroke-width=\"1.5\"");
            self.line(x, self.y(spread.low), x, self.y(spread.high), &style);
            self.put(format_args!(
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.2\" fill=\"{colour}\"/>"
            ));
        }
        self.path(&points, &format!("stroke=\"{colour}\" stroke-width=\"2\""));
        if let Some((_, y)) = points.last() {
            self.names.push((*y, curve.name.clone(), colour.to_owned()));
        }
        for (name, number) in &curve.levels {
            let y = self.y(*number);
            let style = format!("stroke=\"{colour}\" stroke-dasharray=\"5 4\"");
            self.line(self.left, y, self.right, y, &style);
            self.names.push((y, name.clone(), colour.to_owned()));
        }
    }

    /// Beside where they end, moved apart where they would overlap.
    fn name_curves(&mut self) {
        let mut names = std::mem::take(&mut self.names);
        names.sort_by(|a, b| a.0.total_cmp(&b.0));
        // From the bottom up: the axis is there.
        let mut lowest = HEIGHT - BOTTOM;
        let mut places = Vec::new();
        for (y, name, colour) in names.into_iter().rev() {
            let y = y.min(lowest);
            lowest = y - LINE_HEIGHT;
            places.push((y, name, colour));
        }
        for (y, name, colour) in places {
            self.text(self.right + 10.0, y + 4.0, "start", &colour, &name);
        }
    }

    fn path(&mut self, points: &[(f64, f64)], style: &str) {
        let mut path = String::new();
        for (x, y) in points {
            let command = if path.is_empty() { "M" } else { " L" };
            // A string takes everything.
            let _ = write!(path, "{command}{x:.1},{y:.1}");
        }
        self.put(format_args!("<path d=\"{path}\" fill=\"none\" {style}/>"));
    }

    fn line(&mut self, x1: f64, y1: f64, x2: f64, y2: f64, style: &str) {
        self.put(format_args!(
            "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" {style}/>"
        ));
    }

    fn text(&mut self, x: f64, y: f64, anchor: &str, colour: &str, text: &str) {
        self.put(format_args!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{colour}\">{}</text>",
            escaped(text)
        ));
    }

    fn put(&mut self, element: std::fmt::Arguments) {
        let _ = writeln!(self.svg, "{element}");
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

/// 1, 2 or 5 times a power of ten: the smallest of those that is not below.
fn round_step(step: f64) -> f64 {
    let power = 10_f64.powf(step.log10().floor());
    let factors = [1.0, 2.0, 5.0, 10.0];
    let factor = factors.into_iter().find(|factor| factor * power >= step);
    factor.unwrap_or(10.0) * power
}
