//! Plots: small line charts as SVG.

use std::fmt::Write;

/// A line: its name, and its points.
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// A chart; x is logarithmic.
pub(crate) struct Chart<'a> {
    pub(crate) title: &'a str,
    pub(crate) x: &'a str,
    /// Whether y is logarithmic; else it begins at 0.
    pub(crate) logarithmic: bool,
    pub(crate) lines: Vec<Line>,
}

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 380.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;

/// Distinguishable with colour blindness, too.
const COLOURS: [&str; 6] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#555555", "#e69f00",
];

/// How figures are mapped to positions on an axis.
struct Axis {
    low: f64,
    high: f64,
    logarithmic: bool,
    start: f64,
    end: f64,
}

impl Axis {
    fn place(&self, figure: f64) -> f64 {
        let scale = |figure: f64| {
            if self.logarithmic {
                figure.ln()
            } else {
                figure
            }
        };
        let (low, high) = (scale(self.low), scale(self.high));
        let share = (scale(figure) - low) / (high - low).max(f64::EPSILON);
        self.start + share * (self.end - self.start)
    }

    /// Round figures within.
    fn ticks(&self) -> Vec<f64> {
        let decade = |figure: f64| 10f64.powf(figure.log10().floor());
        if self.logarithmic {
            let mut ticks = Vec::new();
            let mut tick = decade(self.low);
            while tick <= self.high * 1.001 {
                ticks.extend([1.0, 2.0, 5.0].map(|n| n * tick));
                tick *= 10.0;
            }
            ticks.retain(|tick| (self.low * 0.999..=self.high * 1.001).contains(tick));
            return ticks;
        }
        let rough = self.high / 8.0;
        let steps = [1.0, 2.0, 5.0, 10.0].map(|n| n * decade(rough));
        let step = steps.into_iter().find(|step| *step >= rough);
        let step = step.unwrap_or(rough);
        let mut ticks = Vec::new();
        let mut tick = 0.0;
        while tick <= self.high * 1.001 {
            ticks.push(tick);
            tick += step;
        }
        ticks
    }
}

impl Chart<'_> {
    /// The chart as SVG.
    pub(crate) fn svg(&self) -> String {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let least = |of: fn(&(f64, f64)) -> f64| points().map(of).fold(f64::INFINITY, f64::min);
        let most = |of: fn(&(f64, f64)) -> f64| points().map(of).fold(0.0, f64::max);
        let x = Axis {
            low: least(|p| p.0),
            high: most(|p| p.0),
            logarithmic: true,
            start: LEFT,
            end: WIDTH - RIGHT,
        };
        let y = Axis {
            low: if self.logarithmic {
                least(|p| p.1) / 1.2
            } else {
                0.0
            },
            high: most(|p| p.1) * if self.logarithmic { 1.2 } else { 1.05 },
            logarithmic: self.logarithmic,
            start: HEIGHT - BOTTOM,
            end: TOP,
        };
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
        );
        text(&mut svg, (LEFT, 22.0), "start\" font-size=\"15", self.title);
        let middle = (LEFT + WIDTH - RIGHT) / 2.0;
        text(&mut svg, (middle, HEIGHT - 12.0), "middle", self.x);
        self.draw_axes(&mut svg, &x, &y);
        self.draw_lines(&mut svg, &x, &y);
        svg.push_str("</svg>\n");
        svg
    }

    fn draw_axes(&self, svg: &mut String, x: &Axis, y: &Axis) {
        for tick in y.ticks() {
            let at = y.place(tick);
            rule(svg, (x.start, at), (x.end, at));
            text(svg, (LEFT - 8.0, at + 4.0), "end", &short(tick));
        }
        let mut ticks: Vec<f64> = self
            .lines
            .iter()
            .flat_map(|l| &l.points)
            .map(|p| p.0)
            .collect();
        ticks.sort_by(f64::total_cmp);
        ticks.dedup();
        for tick in ticks {
            let at = x.place(tick);
            rule(svg, (at, y.start), (at, y.start + 5.0));
            text(svg, (at, y.start + 19.0), "middle", &short(tick));
        }
    }

    fn draw_lines(&self, svg: &mut String, x: &Axis, y: &Axis) {
        // Names stand at the ends of their lines, and not on each other.
        let mut names: Vec<(f64, usize)> = Vec::new();
        for (n, line) in self.lines.iter().enumerate() {
            let colour = COLOURS[n % COLOURS.len()];
            let places: Vec<_> = line
                .points
                .iter()
                .map(|p| (x.place(p.0), y.place(p.1)))
                .collect();
            let path: Vec<_> = places
                .iter()
                .map(|(x, y)| format!("{x:.1},{y:.1}"))
                .collect();
            let path = path.join(" ");
            // Writing to a string does not fail.
            let _ = writeln!(
                svg,
                "<polyline points=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>"
            );
            for (x, y) in &places {
                let _ = writeln!(
                    svg,
                    "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>"
                );
            }
            if let Some((_, y)) = places.last() {
                names.push((*y, n));
            }
        }
        names.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut free = TOP;
        for (at, n) in names {
            let at = at.max(free);
            free = at + 15.0;
            let style = format!("start\" fill=\"{}", COLOURS[n % COLOURS.len()]);
            text(svg, (x.end + 10.0, at + 4.0), &style, &self.lines[n].name);
        }
    }
}

fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, text: &str) {
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"
    );
}

fn rule(svg: &mut String, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
    let _ = writeln!(
        svg,
        "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"#ddd\"/>"
    );
}

/// 20000 as 20k.
fn short(figure: f64) -> String {
    if figure >= 1e6 {
        format!("{}M", figure / 1e6)
    } else if figure >= 2e3 {
        format!("{}k", figure / 1e3)
    } else {
        format!("{}", (figure * 1e3).round() / 1e3)
    }
}
