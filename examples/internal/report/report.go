// Package report is how the example programs show what they measured: text tables, a progress
// bar, latency quantiles and SVG plots. It knows nothing of locks or databases.
package report
