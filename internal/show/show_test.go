package show_test

import (
	"fmt"
	"math"
	"net/netip"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/seed-46f81e6d/keylock/internal/show"
)

type (
	order  struct{ Tenant, number string }
	blank  struct{ A, _, B int }
	named  string
	host   struct{ addr netip.Addr }
	boxed  struct{ next any }
	big    [1 << 20]byte
	secret struct{ password string }
)

func texts[K comparable](key K) (quoted, bare string) { return show.Quoted(&key), show.Bare(&key) }

func quoted[K comparable](key K) string { return show.Quoted(&key) }

func TestKeysOfEveryKindAreShown(t *testing.T) {
	for want, got := range map[string]string{
		`"order/42"`:                            quoted("order/42"),
		`"x"`:                                   quoted(named("x")),
		`-7`:                                    quoted(int8(-7)),
		`255`:                                   quoted(uint8(255)),
		`true`:                                  quoted(true),
		`0.1`:                                   quoted(float32(0.1)),
		`(1+2i)`:                                quoted(1 + 2i),
		`{Tenant:"a b" number:"7"}`:             quoted(order{"a b", "7"}),
		`{A:1 B:3}`:                             quoted(blank{1, 2, 3}),
		`[1 2 3]`:                               quoted([3]int{1, 2, 3}),
		`[]`:                                    quoted([0]byte{}),
		`00ff10`:                                quoted([3]byte{0, 255, 16}),
		`["a" "b c"]`:                           quoted([2]string{"a", "b c"}),
		`nil`:                                   quoted((*int)(nil)),
		`{addr:192.0.2.1}`:                      quoted(host{netip.MustParseAddr("192.0.2.1")}),
		`192.0.2.0/24`:                          quoted(netip.MustParsePrefix("192.0.2.0/24")),
		`::1 port 80`:                           quoted(netip.MustParseAddrPort("[::1]:80")),
		`fe80::1%"eth0"`:                        quoted(netip.MustParseAddr("fe80::1%eth0")),
		`invalid IP`:                            quoted(netip.Addr{}),
		`show_test.order{Tenant:"" number:"1"}`: quoted[any](order{"", "1"}),
	} {
		assert.Equal(t, want, got)
	}
}

// In an interface the same content may have many types.
func TestTypesAreShownWhereAnInterfaceLeavesThemOpen(t *testing.T) {
	seen := map[string]bool{}
	keys := []any{nil, 1, int64(1), uint8(1), 1.0, float32(1), "1", named("1"), true, "true", "nil", [1]int{1}, [1]any{1},
		[1]byte{1}, struct{}{}, struct{ A int }{1}, boxed{1}, boxed{boxed{1}}, (*int)(nil), netip.Addr{}, complex(1, 0)}
	for _, key := range keys {
		text := quoted(key)
		assert.False(t, seen[text], text)
		seen[text] = true
	}
	assert.Equal(t, `uint8(1)`, quoted[any](uint8(1)))
	assert.Equal(t, `show_test.named("1")`, quoted[any](named("1")))
	assert.Equal(t, `show_test.boxed{next:show_test.boxed{next:1}}`, quoted[any](boxed{boxed{1}}))
}

func TestEqualKeysHaveOneText(t *testing.T) {
	zero, minus := 0.0, math.Copysign(0, -1)
	require.Equal(t, zero, minus)
	assert.Equal(t, quoted(zero), quoted(minus))
	assert.Equal(t, quoted(complex(zero, zero)), quoted(complex(minus, minus)))
	assert.Equal(t, quoted(blank{1, 2, 3}), quoted(blank{1, 9, 3}))
}

func TestPointersAreAddresses(t *testing.T) {
	s := &secret{"hunter2"}
	address := fmt.Sprintf("%p", s)
	type holder struct {
		Of any
		At unsafe.Pointer
	}
	assert.Equal(t, address, quoted(s))
	assert.Equal(t, "*show_test.secret("+address+")", quoted[any](s))
	assert.Equal(t, "{Of:*show_test.secret("+address+") At:"+address+"}", quoted(holder{s, unsafe.Pointer(s)}))
	assert.Equal(t, "["+address+"]", quoted([1]*secret{s}))
	c := make(chan int)
	assert.Equal(t, fmt.Sprintf("%p", c), quoted(c))
}

// A rude key has every method that a printer might call.
type rude struct{ n int }

func (rude) String() string               { panic("String") }
func (rude) Error() string                { panic("Error") }
func (rude) GoString() string             { panic("GoString") }
func (rude) Format(fmt.State, rune)       { runtime.Goexit() }
func (rude) MarshalText() ([]byte, error) { select {} }
func (rude) LogValue() any                { panic("LogValue") }

func TestNoMethodOfAKeyIsCalled(t *testing.T) {
	assert.Equal(t, "{n:1}", quoted(rude{1}))
	assert.Equal(t, "[{n:1}]", quoted([1]rude{{1}}))
	assert.Equal(t, "show_test.rude{n:1}", quoted[any](rude{1}))
	assert.Equal(t, "show_test.rude{n:1}", quoted[fmt.Stringer](rude{1}))
	assert.Regexp(t, `^\*show_test\.rude\(0x[0-9a-f]+\)$`, quoted[error](&rude{1}))
}

func TestInvisibleAndDeceptiveTextIsEscaped(t *testing.T) {
	for key, want := range map[string]string{
		"":                               `""`,
		" ":                              `" "`,
		"a  b":                           `"a  b"`,
		"a ":                             `"a "`,
		"a\nb":                           `"a\nb"`,
		`a\nb`:                           `"a\\nb"`,
		`"a"`:                            `"\"a\""`,
		"\x00\x7f\u0085":                 `"\x00\x7f\u0085"`,
		"\xff\xfe":                       `"\xff\xfe"`,
		"\u3164":                         `"\u3164"`, // Hangul filler
		"\u2800":                         `"\u2800"`, // Braille blank
		"\u202edcba":                     `"\u202edcba"`,
		"a\u200bb":                       `"a\u200bb"`, // zero width space
		"a\u00a0b":                       `"a\u00a0b"`,
		"a\u00adb":                       `"a\u00adb"`, // soft hyphen
		"\ufeffa":                        `"\ufeffa"`,
		"\ufffd":                         `"\ufffd"`,
		"a\u201d":                        `"a\u201d"`,
		"a\u2026":                        `"a\u2026"`,
		"e\u0301":                        `"e\u0301"`, // looks like é
		"\u212a":                         `"\u212a"`,  // kelvin, looks like K
		"\U000e0041":                     `"\U000e0041"`,
		"\ufe0f":                         `"\ufe0f"`,
		"\u1112\u1161\u11ab":             `"\u1112\u1161\u11ab"`, // looks like 한
		"1\u0e34":                        `"1\u0e34"`,            // a Thai vowel on a digit
		"\u0e01\u0e34\u0e34\u0e34\u0e34": `"กิิิ\u0e34"`,         // and too many on one letter
	} {
		q, b := texts(key)
		assert.Equal(t, want, q)
		assert.Equal(t, want, b)
	}
	for _, plain := range []string{"order/42", "order 42", "a=b&c", "<i>", "naïve", "заказ", "注文/7", "한", "พื้นที่", "नमस्ते", "שלום", "€ 5", "🦊"} {
		q, b := texts(plain)
		assert.Equal(t, `"`+plain+`"`, q)
		assert.Equal(t, plain, b)
	}
}

func TestLongTextIsCutBetweenLetters(t *testing.T) {
	q, b := texts(strings.Repeat("é", 1<<19))
	assert.Equal(t, `"`+strings.Repeat("é", 127)+`"…(1048576 bytes)`, q)
	assert.Equal(t, q, b)
	q, _ = texts(strings.Repeat("\x00", 1000))
	assert.Equal(t, `"`+strings.Repeat(`\x00`, 63)+`"…(1000 bytes)`, q)
	assert.Equal(t, strings.Repeat("00", 128)+"…", quoted(big{}))
	assert.Less(t, len(quoted([1 << 16]string{})), 300)
	assert.Less(t, len(quoted([1 << 20]struct{}{})), 300)
	long := strings.Repeat("x", 1000)
	assert.Equal(t, `{Tenant:"`+long[:64]+`"…(1000 bytes) number:"7"}`, quoted(order{long, "7"}))
	var deep any
	for range 100_000 {
		deep = boxed{deep}
	}
	assert.Less(t, len(quoted(deep)), 300)
	exact := strings.Repeat("x", show.Most)
	_, b = texts(exact)
	assert.Equal(t, exact, b)
}

// What a text costs does not depend on how long the key is.
func TestKeysAreCutBeforeTheyAreLookedAt(t *testing.T) {
	long, array := strings.Repeat("\x00", 64<<20), new(big)
	wide := new([1 << 22]order)
	allocated := func(f func()) uint64 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		f()
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc
	}
	for name, f := range map[string]func(){
		"a string": func() { show.Bare(&long) }, "bytes": func() { show.Quoted(array) }, "structs": func() { show.Quoted(wide) },
	} {
		assert.Less(t, allocated(f), uint64(256<<10), name)
	}
}

// requireText checks what holds of every text.
func requireText(t *testing.T, text string) {
	t.Helper()
	require.True(t, utf8.ValidString(text), "%q", text)
	require.LessOrEqual(t, len(text), show.Most+40, "%q", text)
	require.NotEmpty(t, text)
	for _, r := range text {
		require.True(t, unicode.IsPrint(r), "%q in %q", r, text)
	}
}

func TestMessageIsCutOrQuotedOnlyWhereItMust(t *testing.T) {
	for text, want := range map[string]string{
		`dial "etcd": refused`:    `dial "etcd": refused`,
		"":                        "",
		"two\nlines":              `"two\nlines"`,
		strings.Repeat("x", 1024): strings.Repeat("x", 1024),
	} {
		assert.Equal(t, want, show.Message(text))
	}
	long := show.Message(strings.Repeat("x", 1<<20))
	assert.Less(t, len(long), 300)
	assert.Contains(t, long, "(1048576 bytes)")
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// FuzzText makes two values of one type, of any shape that can be a key, and compares their
// texts. Pointers lead to nowhere: to read what is there would end the process.
func FuzzText(f *testing.F) {
	for _, seed := range []string{"", "\x00", "string\x05abc\x05abd", "\x0a\x03\x00\x05\x06\x07ab\x00cd", "\x0b\x02\x0c\x08\x09\x0d\x05x", strings.Repeat("\x0a", 40)} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, source []byte) {
		m := &maker{source: source}
		shape := m.shape(0)
		a, b := m.key(shape), m.key(shape)
		textA, textB := quotedValue(a), quotedValue(b)
		requireText(t, textA)
		requireText(t, textB)
		require.Equal(t, textA, quotedValue(a))
		switch equal := a.Elem().Equal(b.Elem()); {
		case equal:
			require.Equal(t, textA, textB)
		case a.Elem().Equal(a.Elem()) && !strings.Contains(textA+textB, "…"): // no NaN, and not cut
			require.NotEqual(t, textA, textB, "%#v and %#v", a.Elem(), b.Elem())
		}
	})
}

// quotedValue is show.Quoted of a key whose type is known at run time only. As a key of an
// interface type it has a type around it more, and all else the same.
func quotedValue(pointer reflect.Value) string {
	key := pointer.Elem().Interface()
	return show.Quoted(&key)
}

// A maker makes types and values of bytes.
type maker struct{ source []byte }

func (m *maker) byte() byte {
	if len(m.source) == 0 {
		return 0
	}
	b := m.source[0]
	m.source = m.source[1:]
	return b
}

func (m *maker) text() string {
	n := min(int(m.byte()), len(m.source))
	s := string(m.source[:n])
	m.source = m.source[n:]
	return s
}

var scalars = []reflect.Type{
	reflect.TypeFor[string](), reflect.TypeFor[bool](), reflect.TypeFor[int](), reflect.TypeFor[int16](), reflect.TypeFor[uint8](),
	reflect.TypeFor[float64](), reflect.TypeFor[complex64](), reflect.TypeFor[named](), reflect.TypeFor[*secret](), reflect.TypeFor[unsafe.Pointer](),
	reflect.TypeFor[any](), reflect.TypeFor[rude](), reflect.TypeFor[order](),
}

// shape makes a type.
func (m *maker) shape(depth int) reflect.Type {
	kind := int(m.byte()) % (len(scalars) + 3)
	if kind < len(scalars) || depth == 4 {
		return scalars[kind%len(scalars)]
	}
	if kind == len(scalars) {
		return reflect.ArrayOf(int(m.byte())%5, m.shape(depth+1))
	}
	var fields []reflect.StructField
	for i := range m.byte() % 4 {
		name := fmt.Sprintf("f%d", i)
		if kind == len(scalars)+1 {
			name = strings.ToUpper(name)
		}
		field := reflect.StructField{Name: name, Type: m.shape(depth + 1)}
		if name[0] == 'f' {
			field.PkgPath = "example.com/p"
		}
		fields = append(fields, field)
	}
	return reflect.StructOf(fields)
}

// key returns a pointer to a value of a type.
func (m *maker) key(shape reflect.Type) reflect.Value {
	p := reflect.New(shape)
	m.fill(p.Elem())
	return p
}

func (m *maker) fill(v reflect.Value) {
	if v = reflect.NewAt(v.Type(), v.Addr().UnsafePointer()).Elem(); !v.CanSet() { // also a field that is not exported
		panic("unreachable")
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(m.text())
	case reflect.Bool:
		v.SetBool(m.byte()%2 == 0)
	case reflect.Int, reflect.Int16:
		v.SetInt(int64(int8(m.byte())))
	case reflect.Uint8:
		v.SetUint(uint64(m.byte()))
	case reflect.Float64:
		v.SetFloat(float64(m.byte()) / float64(int8(m.byte())))
	case reflect.Complex64:
		v.SetComplex(complex(float64(m.byte()), -float64(m.byte())))
	case reflect.Pointer:
		v.Set(reflect.NewAt(v.Type().Elem(), m.nowhere()))
	case reflect.UnsafePointer:
		v.SetPointer(m.nowhere())
	case reflect.Interface:
		if shape := m.shape(3); m.byte()%8 != 0 {
			v.Set(m.key(shape).Elem())
		}
	case reflect.Array:
		for i := range v.Len() {
			m.fill(v.Index(i))
		}
	case reflect.Struct:
		for i := range v.NumField() {
			m.fill(v.Field(i))
		}
	}
}
