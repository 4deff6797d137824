package report

import (
	"fmt"
	"image/color"
	"io"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"github.com/seed-46f81e6d/keylock/benchmarks/internal/results"
)

// SVG writes a plot with a row per workload and a mark per peer, which stands at how
// many times keylock's cost the peer's is, with its quartiles.
func SVG(w io.Writer, r *results.Results) error {
	p := plot.New()
	p.Title.Text = "Cost per operation, as a multiple of keylock's"
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, multiples{}
	p.Legend.Top = true
	p.Add(plotter.NewGrid())

	var rows []string
	for _, workload := range contests(r) {
		if _, ok := r.Figure(results.Cell{Workload: workload.Name, Peer: us}, results.PerOp); ok {
			rows = append(rows, workload.Name)
		}
	}
	if len(rows) == 0 {
		return fmt.Errorf("nothing to plot: %s was not measured", us)
	}
	for i, peer := range columns(r) {
		var marks ratios
		for row, workload := range rows {
			ratio, ok := r.Ratio(results.Cell{Workload: workload, Peer: peer}, results.Cell{Workload: workload, Peer: us}, results.PerOp)
			if ok {
				marks = append(marks, mark{float64(len(rows) - row), ratio})
			}
		}
		if err := add(p, i, peer, marks); err != nil {
			return err
		}
	}
	labels := make([]plot.Tick, len(rows))
	for row, workload := range rows {
		labels[row] = plot.Tick{Value: float64(len(rows) - row), Label: workload}
	}
	p.Y.Tick.Marker = plot.ConstantTicks(labels)
	p.X.Max *= 4 // for the legend
	p.Y.Min, p.Y.Max = 0.5, float64(len(rows))+0.5

	image, err := p.WriterTo(28*vg.Centimeter, vg.Length(len(rows)+6)*0.7*vg.Centimeter, "svg")
	if err != nil {
		return fmt.Errorf("plot: %w", err)
	}
	_, err = image.WriteTo(w)
	return err
}

// add draws the marks of one peer.
func add(p *plot.Plot, i int, peer string, marks ratios) error {
	if len(marks) == 0 {
		return nil
	}
	points, err := plotter.NewScatter(marks)
	if err != nil {
		return fmt.Errorf("plot %s: %w", peer, err)
	}
	points.GlyphStyle = draw.GlyphStyle{Color: plotutil.Color(i), Radius: vg.Points(3.5), Shape: plotutil.Shape(i)}
	if peer == us {
		points.Color = color.Black
	}
	bars, err := plotter.NewXErrorBars(marks)
	if err != nil {
		return fmt.Errorf("plot the quartiles of %s: %w", peer, err)
	}
	bars.Color = points.Color
	p.Add(bars, points)
	p.Legend.Add(peer, points)
	return nil
}

// A mark is a ratio in a row.
type mark struct {
	row   float64
	ratio results.Spread
}

// ratios are marks as the plotter wants them.
type ratios []mark

func (m ratios) Len() int                { return len(m) }
func (m ratios) XY(i int) (x, y float64) { return m[i].ratio.Median, m[i].row }
func (m ratios) XError(i int) (low, high float64) {
	s := m[i].ratio
	return s.Low - s.Median, s.High - s.Median
}

// multiples are the ticks of a logarithmic axis of ratios.
type multiples struct{}

func (multiples) Ticks(least, most float64) []plot.Tick {
	var ticks []plot.Tick
	for _, v := range []float64{0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100} {
		if least <= v && v <= most {
			ticks = append(ticks, plot.Tick{Value: v, Label: fmt.Sprint(v)})
		}
	}
	return ticks
}
