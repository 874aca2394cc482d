package main

import (
	"bytes"
	"fmt"
	"image/color"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"

	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/drive"
	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/peers"
)

// charted are the bars of the chart, from the bottom to the top.
var charted = []struct{ label, who string }{
	{"GoChannel (Watermill)", peers.GoChannel.Name},
	{"NATS core (Watermill)", peers.NATSCore.Name},
	{"gRPC stream (bare)", peers.GRPC.Name},
	{"nats.go (bare)", peers.NATSGo.Name},
	{"buffstreams, 1 in flight", ours1},
	{"buffstreams, 256 in flight", ours256},
}

var (
	blue = color.RGBA{R: 0, G: 110, B: 190, A: 255}
	grey = color.RGBA{R: 160, G: 160, B: 160, A: 255}
)

// chart is the throughput of one publisher as SVG.
func (r *report) chart() ([]byte, error) {
	p, err := r.plot()
	if err != nil {
		return nil, err
	}
	canvas := vgsvg.New(20*vg.Centimeter, 8*vg.Centimeter)
	p.Draw(draw.New(canvas))
	var b bytes.Buffer
	_, err = canvas.WriteTo(&b)
	// A viewer may not have that font.
	return bytes.ReplaceAll(b.Bytes(), []byte("font-family:Liberation Sans"), []byte("font-family:Liberation Sans,Arial,sans-serif")), err
}

func (r *report) plot() (*plot.Plot, error) {
	p := plot.New()
	p.Title.Text = "Thousand messages per second, from one publisher to its subscriber (110 bytes)"
	for _, font := range []*string{
		(*string)(&p.Title.TextStyle.Font.Variant), (*string)(&p.X.Tick.Label.Font.Variant), (*string)(&p.Y.Tick.Label.Font.Variant),
	} {
		*font = "Sans"
	}
	names := make([]string, len(charted))
	values := make(plotter.Values, len(charted))
	for i, bar := range charted {
		names[i], values[i] = bar.label, r.Results["async-1"].of(bar.who, drive.Rate).Median/1e3
		if err := addBar(p, i, values[i], bar.who); err != nil {
			return nil, err
		}
	}
	p.NominalY(names...)
	p.X.Min = 0
	p.Y.Min, p.Y.Max = -0.6, float64(len(charted))-0.2
	p.Title.Padding = vg.Points(6)
	p.X.Max *= 1.1 // room for the figure behind the longest bar
	return p, nil
}

// addBar adds a bar and the figure behind it.
func addBar(p *plot.Plot, at int, value float64, who string) error {
	b, err := plotter.NewBarChart(plotter.Values{value}, vg.Points(18))
	if err != nil {
		return err
	}
	b.Horizontal, b.XMin, b.LineStyle.Width, b.Color = true, float64(at), 0, grey
	if ourOwn[who] {
		b.Color = blue
	}
	figure, err := plotter.NewLabels(plotter.XYLabels{
		XYs: []plotter.XY{{X: value, Y: float64(at)}}, Labels: []string{fmt.Sprintf(" %.0f", value)},
	})
	if err != nil {
		return err
	}
	figure.TextStyle[0].Font.Variant, figure.TextStyle[0].YAlign = "Sans", draw.YCenter
	p.Add(b, figure)
	return nil
}
