// Package show makes texts of keys and labels, for people who read errors, logs and pages.
//
// A key may be of any comparable type, and its content may come from outside. So a text
//
//   - reads no memory behind a pointer, at any depth: a pointer is an address. What it
//     points to belongs to the holder of the lock, who may be writing it.
//   - runs no code of the key's type: no String, Error, Format or other method is called. It
//     might block, panic, or read what it must not.
//   - costs what it shows: a string of a megabyte is cut before it is looked at.
//   - is one line of visible characters, at most [Most] bytes and a few long. Whatever is
//     invisible, or looks like a quotation mark, a backslash or the mark of a cut, is
//     escaped as in a Go string.
//   - is the same for equal keys, and differs for different ones, as far as neither is cut.
package show

import (
	"fmt"
	"net/netip"
	"reflect"
	"strconv"
	"unicode"
	"unicode/utf8"
)

const (
	// Most is how many bytes a text is long at most, but for what says that it is cut.
	Most = 256

	mostMessage = 1024 // bytes of an error that is shown as it is
	mostNested  = 64   // bytes of a string inside a key, so that the fields after it are seen
)

// Quoted returns the text of a key or a label for a sentence. A string is in quotes.
func Quoted[K any](key *K) string { return text(reflect.ValueOf(key).Elem()) }

// First names the first of n keys, and says how many more there are.
func First[K any](key *K, n int) string {
	if n == 1 {
		return "key " + Quoted(key)
	}
	return fmt.Sprintf("key %s and %d more", Quoted(key), n-1)
}

// Bare returns the text of a key or a label for a field of its own: as [Quoted] does, but
// without quotes where the key is a string that needs none.
func Bare[K any](key *K) string {
	v := reflect.ValueOf(key).Elem()
	if v.Kind() == reflect.String && isPlain(v.String()) {
		return v.String()
	}
	return text(v)
}

// Message returns the text of an error of which nothing is known. One that is long, or not all
// visible, is cut and quoted as a string would be.
func Message(text string) string {
	if len(text) > mostMessage {
		return Quoted(&text)
	}
	for _, r := range text {
		if !isVisible(r) {
			return Quoted(&text)
		}
	}
	return text
}

// Type returns the text of a type of keys.
func Type[K any]() string {
	var w writer
	w.name(reflect.TypeFor[K]().String())
	return w.string()
}

func text(v reflect.Value) string {
	var w writer
	w.value(v, false)
	return w.string()
}

func (w *writer) string() string {
	if w.full {
		w.text = append(w.text, mark...)
	}
	return string(w.text)
}

// mark ends a text that is cut.
const mark = "…"

// A writer writes a text until it is full.
type writer struct {
	text   []byte
	full   bool // there was more
	nested bool // in a struct or an array
}

// write writes a piece whole or not at all.
func (w *writer) write(piece string) bool {
	w.full = w.full || len(w.text)+len(piece) > Most
	if !w.full {
		w.text = append(w.text, piece...)
	}
	return !w.full
}

// value writes a value, with its type where an interface left that open.
func (w *writer) value(v reflect.Value, typed bool) {
	t := v.Type()
	if typed && t != reflect.TypeFor[string]() && t != reflect.TypeFor[int]() && t != reflect.TypeFor[bool]() {
		w.name(t.String())
		if kind := t.Kind(); kind != reflect.Struct && kind != reflect.Array {
			w.write("(")
			defer w.write(")")
		}
	}
	if w.full || w.address(v) {
		return
	}
	switch v.Kind() {
	case reflect.Bool:
		w.write(strconv.FormatBool(v.Bool()))
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		w.write(strconv.FormatInt(v.Int(), 10))
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		w.write(strconv.FormatUint(v.Uint(), 10))
	case reflect.Float32, reflect.Float64:
		w.write(strconv.FormatFloat(unsigned(v.Float()), 'g', -1, t.Bits()))
	case reflect.Complex64, reflect.Complex128:
		c := v.Complex()
		w.write(strconv.FormatComplex(complex(unsigned(real(c)), unsigned(imag(c))), 'g', -1, t.Bits()))
	case reflect.String:
		w.quote(v.String())
	case reflect.Pointer, reflect.UnsafePointer, reflect.Chan:
		if v.IsNil() {
			w.write("nil")
		} else {
			w.write(fmt.Sprintf("%#x", v.Pointer()))
		}
	case reflect.Interface:
		if v.IsNil() {
			w.write("nil")
		} else {
			w.value(v.Elem(), true)
		}
	case reflect.Array:
		w.array(v)
	case reflect.Struct:
		w.fields(v)
	default: // it cannot be compared, so it is no key
		w.write("?")
	}
}

// unsigned returns the one zero for both, because they are equal.
func unsigned(f float64) float64 {
	if f == 0 {
		return 0
	}
	return f
}

// array writes the elements; of bytes as hexadecimal digits, because they are hashes and
// identifiers.
func (w *writer) array(v reflect.Value) {
	w.nested = true
	if v.Type().Elem().Kind() == reflect.Uint8 && v.Len() > 0 {
		for i := 0; i < v.Len() && w.write(fmt.Sprintf("%02x", v.Index(i).Uint())); i++ {
		}
		return
	}
	w.write("[")
	for i := 0; i < v.Len() && !w.full; i++ {
		if i > 0 {
			w.write(" ")
		}
		w.value(v.Index(i), false)
	}
	w.write("]")
}

// fields writes the fields of a struct, but for blank ones, which make no difference.
func (w *writer) fields(v reflect.Value) {
	w.nested = true
	w.write("{")
	separator := ""
	for i := 0; i < v.NumField() && !w.full; i++ {
		field := v.Type().Field(i)
		if field.Name == "_" {
			continue
		}
		w.write(separator)
		separator = " "
		w.name(field.Name)
		w.write(":")
		w.value(v.Field(i), false)
	}
	w.write("}")
}

// address writes an address of package netip, which means nothing to people as a struct,
// and reports whether it is one. What these point to never changes.
func (w *writer) address(v reflect.Value) bool {
	if v.Kind() != reflect.Struct || v.Type().PkgPath() != "net/netip" {
		return false
	}
	if v.CanAddr() { // else the field that it is in must be exported
		v = reflect.NewAt(v.Type(), v.Addr().UnsafePointer()).Elem()
	}
	if !v.CanInterface() {
		return false
	}
	switch a := v.Interface().(type) {
	case netip.Addr:
		w.ip(a)
	case netip.AddrPort:
		w.ip(a.Addr())
		w.write(" port " + strconv.Itoa(int(a.Port())))
	case netip.Prefix:
		w.ip(a.Addr())
		w.write("/" + strconv.Itoa(a.Bits()))
	default:
		return false
	}
	return true
}

func (w *writer) ip(a netip.Addr) {
	w.write(a.WithZone("").String())
	if a.Zone() != "" {
		w.write("%")
		w.quote(a.Zone())
	}
}

// quote writes a string in quotes, and how long it is where it is cut.
func (w *writer) quote(s string) {
	if !w.write(`"`) {
		return
	}
	most := Most - 1
	if w.nested {
		most = min(most, len(w.text)+mostNested)
	}
	cut := w.runes(s, most)
	w.text = append(w.text, '"')
	if cut {
		w.text = fmt.Appendf(w.text, "%s(%d bytes)", mark, len(s))
	}
}

// name writes the name of a type or of a field, in which any letter may stand.
func (w *writer) name(s string) { w.full = w.runes(s, Most) || w.full }

// runes writes a string while the text is at most so long, and reports whether it is cut.
func (w *writer) runes(s string, most int) (cut bool) {
	marks := mostMarks // on the letter before
	for len(s) > 0 {
		r, size := utf8.DecodeRuneInString(s)
		marks = countMarks(r, marks)
		var escaped [10]byte
		piece := escape(escaped[:0], r, s[:size], marks)
		if len(w.text)+len(piece) > most {
			return true
		}
		w.text = append(w.text, piece...)
		s = s[size:]
	}
	return false
}

// escape appends a rune, as it is where it is visible.
func escape(b []byte, r rune, encoded string, marks int) []byte {
	switch {
	case r == utf8.RuneError && len(encoded) == 1:
		return fmt.Appendf(b, `\x%02x`, encoded[0])
	case r == '"' || r == '\\':
		return append(b, '\\', byte(r))
	case isVisible(r) && marks <= mostMarks:
		return append(b, encoded...)
	}
	quoted := strconv.QuoteRuneToASCII(r)
	return append(b, quoted[1:len(quoted)-1]...)
}

// isPlain reports whether a string is short, visible and clear without quotes.
func isPlain(s string) bool {
	if s == "" || len(s) > Most || s[0] == ' ' || s[len(s)-1] == ' ' {
		return false
	}
	marks, last := mostMarks, rune(0)
	for _, r := range s {
		marks = countMarks(r, marks)
		if !isVisible(r) || marks > mostMarks || r == '"' || r == '\\' || r == ' ' && last == ' ' {
			return false
		}
		last = r
	}
	return true
}

// mostMarks is how many combining marks may stand on one letter: piled up they would cover
// the text around them.
const mostMarks = 3

// countMarks counts the combining marks since the last letter. None may stand on anything
// else.
func countMarks(r rune, marks int) int {
	switch {
	case r < utf8.RuneSelf && !unicode.IsLetter(r):
		return mostMarks
	case unicode.IsMark(r):
		return min(marks, mostMarks) + 1
	case unicode.IsLetter(r):
		return 0
	}
	return mostMarks
}

// isVisible reports whether a rune is seen, and taken for what it is.
func isVisible(r rune) bool {
	if r < utf8.RuneSelf {
		return ' ' <= r && r <= '~'
	}
	return unicode.IsPrint(r) && !unicode.In(r, unseen, lookalikes, unicode.Inherited,
		unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}

// unseen are characters that count as printable, and have no ink, or stand for what is
// missing.
var unseen = &unicode.RangeTable{
	R16: []unicode.Range16{
		{Lo: 0x115F, Hi: 0x1160, Stride: 1}, // Hangul fillers
		{Lo: 0x17B4, Hi: 0x17B5, Stride: 1}, // inherent vowels of Khmer
		{Lo: 0x2800, Hi: 0x2800, Stride: 1}, // Braille without a dot
		{Lo: 0x3164, Hi: 0x3164, Stride: 1}, // another Hangul filler
		{Lo: 0xFFA0, Hi: 0xFFA0, Stride: 1}, // and its half-width form
		{Lo: 0xFFFC, Hi: 0xFFFD, Stride: 1}, // replacements
	},
	R32: []unicode.Range32{
		{Lo: 0x16FE4, Hi: 0x16FE4, Stride: 1}, // Khitan filler
		{Lo: 0x1D159, Hi: 0x1D159, Stride: 1}, // a note without a head
	},
}

// lookalikes are characters that look like what delimits and escapes a text, or the same as
// another sequence of characters does.
var lookalikes = &unicode.RangeTable{
	R16: []unicode.Range16{
		{Lo: 0x02BA, Hi: 0x02BA, Stride: 1}, // like "
		{Lo: 0x02DD, Hi: 0x02DD, Stride: 1},
		{Lo: 0x02EE, Hi: 0x02EE, Stride: 1},
		{Lo: 0x02F6, Hi: 0x02F6, Stride: 1},
		{Lo: 0x037E, Hi: 0x037E, Stride: 1}, // like ;
		{Lo: 0x05F2, Hi: 0x05F2, Stride: 1}, // like "
		{Lo: 0x05F4, Hi: 0x05F4, Stride: 1},
		{Lo: 0x1100, Hi: 0x115E, Stride: 1}, // parts of Hangul syllables
		{Lo: 0x1161, Hi: 0x11FF, Stride: 1},
		{Lo: 0x1CD3, Hi: 0x1CD3, Stride: 1}, // like "
		{Lo: 0x1FEF, Hi: 0x1FEF, Stride: 1}, // like `
		{Lo: 0x201C, Hi: 0x201F, Stride: 1}, // like "
		{Lo: 0x2026, Hi: 0x2026, Stride: 1}, // the mark of a cut
		{Lo: 0x2033, Hi: 0x2033, Stride: 1}, // like "
		{Lo: 0x2036, Hi: 0x2036, Stride: 1},
		{Lo: 0x2126, Hi: 0x2126, Stride: 1}, // ohm, kelvin and ångström, like the letters
		{Lo: 0x212A, Hi: 0x212B, Stride: 1},
		{Lo: 0x2216, Hi: 0x2216, Stride: 1}, // like \
		{Lo: 0x22EF, Hi: 0x22EF, Stride: 1}, // like the mark
		{Lo: 0x275D, Hi: 0x275E, Stride: 1}, // like "
		{Lo: 0x29F5, Hi: 0x29F5, Stride: 1}, // like \
		{Lo: 0x29F9, Hi: 0x29F9, Stride: 1},
		{Lo: 0x2F02, Hi: 0x2F02, Stride: 1},
		{Lo: 0x3003, Hi: 0x3003, Stride: 1}, // like "
		{Lo: 0x301D, Hi: 0x301F, Stride: 1},
		{Lo: 0x31D4, Hi: 0x31D4, Stride: 1}, // like \
		{Lo: 0xA960, Hi: 0xA97C, Stride: 1}, // parts of Hangul syllables
		{Lo: 0xD7B0, Hi: 0xD7FB, Stride: 1},
		{Lo: 0xF900, Hi: 0xFAFF, Stride: 1}, // second codes of Chinese characters
		{Lo: 0xFE19, Hi: 0xFE19, Stride: 1}, // like the mark
		{Lo: 0xFE68, Hi: 0xFE68, Stride: 1}, // like \
		{Lo: 0xFF02, Hi: 0xFF02, Stride: 1}, // like "
		{Lo: 0xFF3C, Hi: 0xFF3C, Stride: 1}, // like \
	},
	R32: []unicode.Range32{
		{Lo: 0x1F676, Hi: 0x1F678, Stride: 1}, // like "
		{Lo: 0x2F800, Hi: 0x2FA1F, Stride: 1}, // second codes of Chinese characters
	},
}
