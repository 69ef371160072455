//! The chart: ratios to the uninstrumented module, as bars.

use std::path::Path;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use wasmtime::{Result, format_err};

use crate::columns::Column;
use crate::modules::{self, SQLITE};
use crate::report::{mean, ratio};
use crate::results::Results;

/// A group of bars: its label, and a ratio for each series.
type Group = (String, Vec<Option<f64>>);

const SERIES: [(Column, RGBColor); 3] = [
    (Column::Asyncify, RGBColor(158, 164, 171)),
    (Column::Effects, RGBColor(113, 164, 214)),
    (Column::Separate, RGBColor(23, 86, 155)),
];

const METRICS: [(&str, &str); 9] = [
    ("size", "size"),
    ("size.both", "size, resume module included"),
    ("locals", "locals on the fork path"),
    ("run.v8", "run time, V8"),
    ("run.wasmtime", "run time, wasmtime"),
    ("start.cpu", "short process, Node"),
    ("compile.turbofan.cpu", "compile time, V8"),
    ("compile.turbofan.peak", "compile memory, V8"),
    ("compile.wasmtime.cpu", "compile time, wasmtime"),
];

const WIDTH: i32 = 960;
const LABELS: i32 = 210;
const RIGHT: i32 = 60;
const BAR: i32 = 10;
const GAP: i32 = 10;
const GROUP: i32 = BAR * SERIES.len() as i32 + GAP;
const TITLE: i32 = 44;
/// Bars are cut off here; their numbers are not.
const LIMIT: f64 = 4.0;

/// Draws the chart.
pub fn write(path: &Path, results: &Results) -> Result<()> {
    let group = |label: &str, ratio: &dyn Fn(Column) -> Option<f64>| {
        let ratios: Vec<_> = SERIES.iter().map(|&(column, _)| ratio(column)).collect();
        ratios.iter().any(Option::is_some).then(|| (label.to_owned(), ratios))
    };
    let sqlite =
        METRICS.iter().filter_map(|&(metric, label)| group(label, &|column| ratio(results, SQLITE, column, metric)));
    let all = METRICS.iter().filter_map(|&(metric, label)| group(label, &|column| mean(results, column, metric)));
    let each = |metric: &'static str| {
        let programs = modules::ALL.iter().filter(|module| !module.example);
        programs.filter_map(move |module| group(module.name, &|column| ratio(results, module.name, column, metric)))
    };
    let panels: [(&str, Vec<Group>); 4] = [
        ("SQLite, relative to the uninstrumented module", sqlite.collect()),
        ("Real programs, geometric means", all.collect()),
        ("Size of each program (first module)", each("size").collect()),
        ("Run time of each program in V8", each("run.v8").collect()),
    ];
    let panels: Vec<_> = panels.into_iter().filter(|(_, groups)| !groups.is_empty()).collect();
    let height: i32 = 40 + panels.iter().map(|(_, groups)| TITLE + GROUP * groups.len() as i32 + 12).sum::<i32>();
    let area = SVGBackend::new(path, (WIDTH as u32, height as u32)).into_drawing_area();
    draw(&area, &panels).map_err(|error| format_err!("cannot draw the chart: {error}"))
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Drawn = std::result::Result<(), Box<dyn std::error::Error>>;

fn draw(area: &Area<'_>, panels: &[(&str, Vec<Group>)]) -> Drawn {
    area.fill(&WHITE)?;
    let mut left = LABELS;
    for (column, color) in SERIES {
        area.draw(&Rectangle::new([(left, 14), (left + 14, 26)], color.filled()))?;
        text(area, column.title(), (left + 20, 20), 14, HPos::Left, BLACK)?;
        left += 40 + 8 * column.title().len() as i32;
    }
    let mut top = 40;
    for (title, groups) in panels {
        text(area, title, (LABELS, top + 18), 16, HPos::Left, BLACK)?;
        top += TITLE;
        let bottom = top + GROUP * groups.len() as i32;
        for tick in 0..=LIMIT as i32 {
            let x = place(f64::from(tick));
            let color = if tick == 1 { RGBColor(200, 60, 50) } else { RGBColor(225, 225, 225) };
            area.draw(&PathElement::new(vec![(x, top - 4), (x, bottom)], color))?;
            text(area, &tick.to_string(), (x, top - 11), 11, HPos::Center, RGBColor(110, 110, 110))?;
        }
        for (label, ratios) in groups {
            let middle = top + (GROUP - GAP) / 2;
            text(area, label, (LABELS - 10, middle), 13, HPos::Right, BLACK)?;
            for (index, (ratio, (_, color))) in ratios.iter().zip(SERIES).enumerate() {
                let Some(ratio) = ratio else { continue };
                let y = top + BAR * index as i32;
                let end = place(ratio.min(LIMIT));
                area.draw(&Rectangle::new([(LABELS, y), (end, y + BAR - 1)], color.filled()))?;
                text(area, &format!("{ratio:.2}"), (end + 5, y + BAR / 2), 10, HPos::Left, RGBColor(70, 70, 70))?;
            }
            top += GROUP;
        }
        top += 12;
    }
    area.present()?;
    Ok(())
}

/// Where a ratio is on the horizontal axis.
fn place(ratio: f64) -> i32 {
    LABELS + (ratio / LIMIT * f64::from(WIDTH - LABELS - RIGHT)).round() as i32
}

fn text(area: &Area<'_>, text: &str, at: (i32, i32), size: i32, side: HPos, color: RGBColor) -> Drawn {
    let style = TextStyle::from(("sans-serif", size).into_font()).color(&color).pos(Pos::new(side, VPos::Center));
    area.draw(&Text::new(text.to_owned(), at, style))?;
    Ok(())
}
