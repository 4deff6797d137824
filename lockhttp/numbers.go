package lockhttp

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// age shows a duration in three digits, or in its two largest units.
func age(d time.Duration) string {
	if d <= 0 {
		return "0"
	}
	units := []struct {
		unit time.Duration
		name string
		most float64 // of which another unit begins
	}{{1, "ns", 1000}, {time.Microsecond, "µs", 1000}, {time.Millisecond, "ms", 1000}, {time.Second, "s", 60}}
	for _, u := range units {
		if digits := significant(float64(d)/float64(u.unit), 3); number(digits) < u.most {
			return digits + " " + u.name
		}
	}
	if r := d.Round(time.Second); r < time.Hour {
		return fmt.Sprintf("%dm %02ds", r/time.Minute, r%time.Minute/time.Second)
	}
	if r := d.Round(time.Minute); r < 48*time.Hour {
		return fmt.Sprintf("%dh %02dm", r/time.Hour, r%time.Hour/time.Minute)
	}
	r := d.Round(time.Hour)
	return fmt.Sprintf("%dd %02dh", r/(24*time.Hour), r%(24*time.Hour)/time.Hour)
}

// short shows a bound of a histogram in two digits or three.
func short(d time.Duration) string {
	unit, name := time.Microsecond, "µs"
	switch {
	case d >= time.Minute:
		unit, name = time.Minute, "min"
	case d >= time.Second:
		unit, name = time.Second, "s"
	case d >= time.Millisecond:
		unit, name = time.Millisecond, "ms"
	}
	digits, v := 2, float64(d)/float64(unit)
	if v >= 100 {
		digits = 3
	}
	return significant(v, digits) + " " + name
}

// significant shows a number in so many digits, without a power of ten.
func significant(v float64, digits int) string {
	text := strconv.FormatFloat(v, 'e', digits-1, 64)
	v = number(text) // rounded, so that 9.999 has the digits of 10
	_, exponent, _ := strings.Cut(text, "e")
	power, _ := strconv.Atoi(exponent)
	text = strconv.FormatFloat(v, 'f', max(digits-1-power, 0), 64)
	if strings.Contains(text, ".") {
		text = strings.TrimRight(strings.TrimRight(text, "0"), ".")
	}
	return text
}

func number(text string) float64 {
	v, _ := strconv.ParseFloat(text, 64)
	return v
}

// percent shows a share.
func percent(share float64) string {
	switch p := 100 * share; {
	case p <= 0:
		return "0%"
	case p < 0.1:
		return "<0.1%"
	case p < 9.95:
		return strconv.FormatFloat(p, 'f', 1, 64) + "%"
	default:
		return strconv.FormatFloat(p, 'f', 0, 64) + "%"
	}
}

// rate shows a number of events in a second.
func rate(v float64) string {
	switch {
	case v <= 0:
		return "0/s"
	case v < 0.1:
		return "<0.1/s"
	case v < 9.95:
		return strconv.FormatFloat(v, 'f', 1, 64) + "/s"
	default:
		return count(strconv.FormatFloat(v, 'f', 0, 64)) + "/s"
	}
}

// count shows a number with its thousands apart.
func count(n any) string {
	digits := fmt.Sprint(n)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "\u202f" + digits[i:]
	}
	return digits
}
