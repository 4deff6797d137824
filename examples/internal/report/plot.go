package report

import (
	"errors"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"time"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

const (
	panelWidth  = 5 * vg.Inch
	panelHeight = 4 * vg.Inch
	barWidth    = 0.4 * vg.Inch

	// curvePoints is how many points a latency curve is drawn with, however many were measured.
	curvePoints = 200
)

func init() { plot.DefaultFont.Variant, plotter.DefaultFont.Variant = "Sans", "Sans" }

// Bars is one colour of a grouped bar chart: a value for each group.
type Bars struct {
	Name   string
	Values []float64
}

// BarPlot draws the values of every series side by side over the names of the groups, each value
// written on its bar.
func BarPlot(title, unit string, groups []string, series ...Bars) (*plot.Plot, error) {
	p := newPlot(title)
	p.Y.Label.Text = unit
	p.NominalX(groups...)
	for i, s := range series {
		chart, err := plotter.NewBarChart(plotter.Values(s.Values), barWidth)
		if err != nil {
			return nil, err
		}
		chart.Color = plotutil.Color(i)
		chart.LineStyle.Width = 0
		chart.Offset = barWidth * vg.Length(float64(i)-float64(len(series)-1)/2)
		values, err := barLabels(chart)
		if err != nil {
			return nil, err
		}
		p.Add(chart, values)
		if len(series) > 1 {
			p.Legend.Add(s.Name, chart)
		}
	}
	p.X.Min, p.X.Max = -0.5, float64(len(groups))-0.5
	p.Y.Min, p.Y.Max = 0, max(1, 1.25*p.Y.Max) // room for the legend
	return p, nil
}

// barLabels returns the values of a chart as texts that stand on its bars.
func barLabels(chart *plotter.BarChart) (*plotter.Labels, error) {
	var on plotter.XYLabels
	for i, value := range chart.Values {
		on.XYs = append(on.XYs, plotter.XY{X: float64(i), Y: value})
		on.Labels = append(on.Labels, strconv.FormatFloat(value, 'g', 6, 64))
	}
	labels, err := plotter.NewLabels(on)
	if err != nil {
		return nil, err
	}
	for i := range labels.TextStyle {
		labels.TextStyle[i].XAlign = text.XCenter
	}
	labels.Offset = vg.Point{X: chart.Offset, Y: vg.Points(3)}
	return labels, nil
}

// Latencies is one curve of a latency plot: everything that was measured under a name.
type Latencies struct {
	Name   string
	Values []time.Duration
}

// LatencyPlot draws for each curve the share of its values, in per cent, that were at most so
// long, on a logarithmic time axis. A curve without values is left out.
func LatencyPlot(title string, curves ...Latencies) (*plot.Plot, error) {
	p := newPlot(title)
	p.X.Label.Text = "milliseconds"
	p.Y.Label.Text = "% of events done"
	p.Y.Min, p.Y.Max = 0, 100
	for i, c := range curves {
		if len(c.Values) == 0 {
			continue
		}
		line, err := plotter.NewLine(distribution(c.Values))
		if err != nil {
			return nil, err
		}
		line.Color = plotutil.Color(i)
		line.Width = vg.Points(2)
		p.Add(line)
		p.Legend.Add(c.Name, line)
		// A logarithmic axis needs its range to be more than a point.
		p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
		p.X.Max = max(p.X.Max, 2*p.X.Min)
	}
	p.Legend.Top = false // the curves rise to the upper right
	return p, nil
}

// distribution returns the cumulative distribution of latencies: x in milliseconds, y in per cent.
func distribution(latencies []time.Duration) plotter.XYs {
	sorted := slices.Sorted(slices.Values(latencies))
	points := make(plotter.XYs, curvePoints)
	for i := range points {
		share := float64(i+1) / curvePoints
		points[i].X = math.Max(quantile(sorted, share).Seconds()*1e3, 1e-3) // a logarithm has no zero
		points[i].Y = 100 * share
	}
	return points
}

func newPlot(title string) *plot.Plot {
	p := plot.New()
	p.Title.Text = title
	p.Title.Padding = vg.Points(10)
	p.Legend.Top = true
	p.Legend.Padding = vg.Points(3)
	p.Legend.XOffs = -vg.Points(5)
	lines := plotter.NewGrid()
	lines.Vertical.Width = 0
	p.Add(lines)
	return p
}

// SaveSVG writes the panels side by side as one SVG picture into a file, which it creates
// or overwrites.
func SaveSVG(file string, panels ...*plot.Plot) (err error) {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return WriteSVG(f, panels...)
}

// WriteSVG writes the panels side by side as one SVG picture.
func WriteSVG(w io.Writer, panels ...*plot.Plot) error {
	canvas := vgsvg.New(panelWidth*vg.Length(len(panels)), panelHeight)
	tiles := draw.Tiles{
		Rows: 1, Cols: len(panels),
		PadTop: vg.Points(10), PadBottom: vg.Points(10), PadLeft: vg.Points(10), PadRight: vg.Points(10), PadX: vg.Points(20),
	}
	for i, area := range plot.Align([][]*plot.Plot{panels}, tiles, draw.New(canvas))[0] {
		panels[i].Draw(area)
	}
	_, err := canvas.WriteTo(w)
	return err
}
