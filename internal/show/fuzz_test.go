package show_test

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock/internal/show"
)

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
