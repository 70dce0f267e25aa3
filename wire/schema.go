package wire

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// ParameterType says how the text of a parameter's value is to be read.
type ParameterType string

// The types. Every value is text of one form, so that two values are the same exactly when their texts are.
const (
	TypeText        ParameterType = "text"        // UTF-8
	TypeInteger     ParameterType = "integer"     // decimal, of 64 bits
	TypeBoolean     ParameterType = "boolean"     // true or false
	TypeDuration    ParameterType = "duration"    // as Go writes it: 1h30m0s, 250ms
	TypeEnumeration ParameterType = "enumeration" // one of Values
	TypeBytes       ParameterType = "bytes"       // base64 (RFC 4648 §4, padded)
)

// ParameterTypes are all of them.
func ParameterTypes() []ParameterType {
	return []ParameterType{TypeText, TypeInteger, TypeBoolean, TypeDuration, TypeEnumeration, TypeBytes}
}

// Parameter is what a product says of one of its parameters.
type Parameter struct {
	Name    string        `cbor:"1,keyasint" json:"name" doc:"dotted lower-case words, at most 64 bytes"`
	Type    ParameterType `cbor:"2,keyasint" json:"type" enum:"text,integer,boolean,duration,enumeration,bytes"`
	About   string        `cbor:"3,keyasint,omitempty" json:"about,omitempty" doc:"what it does, for who sets it; at most 200 bytes"`
	Unit    string        `cbor:"4,keyasint,omitempty" json:"unit,omitempty" doc:"of an integer: ml/h"`
	Default *string       `cbor:"5,keyasint,omitempty" json:"default,omitempty" doc:"what programs are told while nothing was set; absent: nothing"`
	Min     string        `cbor:"6,keyasint,omitempty" json:"min,omitempty" doc:"of integers and durations: the least"`
	Max     string        `cbor:"7,keyasint,omitempty" json:"max,omitempty" doc:"of integers and durations: the greatest"`
	Length  uint32        `cbor:"8,keyasint,omitempty" json:"length,omitempty" doc:"of texts and bytes: how many bytes at most; absent: as many as a value can have"`
	Values  []string      `cbor:"9,keyasint,omitempty" json:"values,omitempty" doc:"of an enumeration"`
	Secret  bool          `cbor:"10,keyasint,omitempty" json:"secret,omitempty" doc:"once set it is shown nowhere any more"`
	Basic   bool          `cbor:"11,keyasint,omitempty" json:"basic,omitempty" doc:"the factory lays it down, and it does not change in the field"`
	SetBy   []string      `cbor:"12,keyasint,omitempty" json:"set_by,omitempty" doc:"roles of which one may set it, in rising order; the server holds people to it. Absent: whoever may configure"`
}

// Schema is a product's parameters, in rising order of their names. Without any, whatever name and text is taken.
type Schema []Parameter

const (
	maxAbout  = 200
	maxUnit   = 16
	maxValues = 64
	maxRoles  = 16
)

// ErrMisfit says that a value is not what the schema asks for.
var ErrMisfit = errors.New("it does not fit the schema of the parameters")

// Check says whether the schema is well made.
func (s Schema) Check() error {
	if len(s) > MaxConfigEntries {
		return fmt.Errorf("%d parameters, at most %d", len(s), MaxConfigEntries)
	}
	before := ""
	for _, p := range s {
		if err := p.check(); err != nil {
			return fmt.Errorf("parameter %q: %w", p.Name, err)
		}
		if p.Name <= before {
			return fmt.Errorf("parameter %q: not in rising order of names, each once", p.Name)
		}
		before = p.Name
	}
	return nil
}

// Find gives the parameter of a name.
func (s Schema) Find(name string) (Parameter, bool) {
	i, ok := slices.BinarySearchFunc(s, name, func(p Parameter, n string) int { return strings.Compare(p.Name, n) })
	if !ok {
		return Parameter{}, false
	}
	return s[i], true
}

// Admit says whether entries may be set in the field: each is of the schema, not the factory's, and fits.
func (s Schema) Admit(entries []ConfigEntry) error {
	if len(s) == 0 {
		return nil
	}
	for _, e := range entries {
		p, ok := s.Find(e.Name)
		switch {
		case !ok:
			return fmt.Errorf("%w: there is no parameter %q", ErrMisfit, e.Name)
		case p.Basic:
			return fmt.Errorf("%w: parameter %q is basic: the factory lays it down, and it does not change in the field", ErrMisfit, e.Name)
		}
		if err := p.Fit(e.Value); err != nil {
			return err
		}
	}
	return nil
}

// Holds says whether a device that has these values could go on with them under the schema. A name that the schema does not have stays where it is, and is told to
// no program: a release that comes back later may know it again.
func (s Schema) Holds(entries []ConfigEntry) error {
	for _, e := range entries {
		if p, ok := s.Find(e.Name); ok {
			if err := p.Fit(e.Value); err != nil {
				return err
			}
		}
	}
	return nil
}

// Values is what a program is told that names these parameters: one JSON object. Integers and booleans are JSON's, all else is text as it was set; what was not
// set has its default, and is left out where it has none.
func (s Schema) Values(names []string, have []ConfigEntry) ([]byte, error) {
	out := map[string]any{}
	for _, name := range names {
		p, ok := s.Find(name)
		if !ok {
			continue
		}
		value := p.Default
		if i := slices.IndexFunc(have, func(e ConfigEntry) bool { return e.Name == name }); i >= 0 {
			value = &have[i].Value
		}
		if value == nil {
			continue
		}
		out[name] = *value
		if n, ok := p.number(*value); ok && p.Type == TypeInteger {
			out[name] = n
		}
		if p.Type == TypeBoolean {
			out[name] = *value == "true"
		}
	}
	return json.Marshal(out)
}

// Mark says of each entry that it is secret if the schema says so.
func (s Schema) Mark(entries []ConfigEntry) []ConfigEntry {
	out := slices.Clone(entries)
	for i := range out {
		if p, ok := s.Find(out[i].Name); ok && p.Secret {
			out[i].Secret = true
		}
	}
	return out
}

// Hide is the entries without the values of those that are secret: what may be shown.
func Hide(entries []ConfigEntry) []ConfigEntry {
	out := slices.Clone(entries)
	for i := range out {
		if out[i].Secret {
			out[i].Value = ""
		}
	}
	return out
}

// String says what a value has to be, for people.
func (p Parameter) String() string {
	out := []string{string(p.Type)}
	switch {
	case p.Min != "" && p.Max != "":
		out = append(out, p.Min+" to "+p.Max)
	case p.Min != "":
		out = append(out, "from "+p.Min)
	case p.Max != "":
		out = append(out, "up to "+p.Max)
	}
	if p.Unit != "" {
		out = append(out, p.Unit)
	}
	if p.Length > 0 {
		out = append(out, fmt.Sprintf("at most %d bytes", p.Length))
	}
	if len(p.Values) > 0 {
		out = append(out, strings.Join(p.Values, " | "))
	}
	if p.Default != nil {
		out = append(out, "default "+*p.Default)
	}
	if p.Secret {
		out = append(out, "secret")
	}
	if p.Basic {
		out = append(out, "basic")
	}
	if len(p.SetBy) > 0 {
		out = append(out, "set by "+strings.Join(p.SetBy, ", "))
	}
	return strings.Join(out, ", ")
}

// Fit says whether a value is one of the parameter's. What it says of a secret does not hold the value.
func (p Parameter) Fit(value string) error {
	if len(value) > MaxConfigValue {
		return fmt.Errorf("%w: parameter %q: %d bytes, at most %d", ErrMisfit, p.Name, len(value), MaxConfigValue)
	}
	if why := p.wrong(value); why != "" {
		if p.Secret {
			return fmt.Errorf("%w: parameter %q: want %s", ErrMisfit, p.Name, p)
		}
		return fmt.Errorf("%w: parameter %q: %.64q %s", ErrMisfit, p.Name, value, why)
	}
	return nil
}

func (p Parameter) wrong(value string) string {
	switch p.Type {
	case TypeText:
		return p.long(value, len(value))
	case TypeInteger, TypeDuration:
		n, ok := p.number(value)
		if !ok {
			return "is no " + string(p.Type) + " in its one form"
		}
		if least, ok := p.number(p.Min); ok && n < least {
			return "is below " + p.Min
		}
		if most, ok := p.number(p.Max); ok && n > most {
			return "is above " + p.Max
		}
	case TypeBoolean:
		if value != "true" && value != "false" {
			return "is neither true nor false"
		}
	case TypeEnumeration:
		if !slices.Contains(p.Values, value) {
			return "is none of " + strings.Join(p.Values, ", ")
		}
	case TypeBytes:
		b, err := base64.StdEncoding.Strict().DecodeString(value)
		if err != nil || strings.ContainsAny(value, "\r\n") {
			return "is not base64"
		}
		return p.long("", len(b))
	default:
		return "is of a type that nobody knows"
	}
	return ""
}

func (p Parameter) long(text string, n int) string {
	if !utf8.ValidString(text) {
		return "is not UTF-8"
	}
	if p.Length > 0 && n > int(p.Length) {
		return fmt.Sprintf("has %d bytes, at most %d may be", n, p.Length)
	}
	return ""
}

// number reads an integer, or a duration in nanoseconds, from its one form.
func (p Parameter) number(value string) (int64, bool) {
	if p.Type == TypeDuration {
		d, err := time.ParseDuration(value)
		return int64(d), err == nil && d.String() == value
	}
	n, err := strconv.ParseInt(value, 10, 64)
	return n, err == nil && strconv.FormatInt(n, 10) == value
}

// Canonical gives the schema, and Canonise the entries, with each value in its one form: a person may have written 90s for 1m30s.
func (s Schema) Canonical() Schema {
	out := slices.Clone(s)
	for i := range out {
		p := &out[i]
		p.Min, p.Max = p.canonical(p.Min), p.canonical(p.Max)
		if p.Default != nil {
			d := p.canonical(*p.Default)
			p.Default = &d
		}
	}
	slices.SortFunc(out, func(a, b Parameter) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// Canonise is Canonical of entries.
func (s Schema) Canonise(entries []ConfigEntry) []ConfigEntry {
	out := slices.Clone(entries)
	for i := range out {
		if p, ok := s.Find(out[i].Name); ok {
			out[i].Value = p.canonical(out[i].Value)
		}
	}
	return out
}

func (p Parameter) canonical(value string) string {
	if d, err := time.ParseDuration(value); p.Type == TypeDuration && err == nil {
		return d.String()
	}
	if n, err := strconv.ParseInt(strings.TrimPrefix(value, "+"), 10, 64); p.Type == TypeInteger && err == nil {
		return strconv.FormatInt(n, 10)
	}
	return value
}

func (p Parameter) check() error {
	numeric := p.Type == TypeInteger || p.Type == TypeDuration
	switch {
	case !configName(p.Name):
		return fmt.Errorf("want dotted lower-case words of at most %d bytes", MaxConfigName)
	case !slices.Contains(ParameterTypes(), p.Type):
		return fmt.Errorf("type %q: want one of %v", p.Type, ParameterTypes())
	case len(p.About) > maxAbout || len(p.Unit) > maxUnit || !utf8.ValidString(p.About+p.Unit) || strings.ContainsFunc(p.About+p.Unit, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return fmt.Errorf("about and unit: want one line each, of at most %d and %d bytes", maxAbout, maxUnit)
	case p.Unit != "" && p.Type != TypeInteger:
		return fmt.Errorf("a unit of %s: only an integer has one", p.Type)
	case (p.Min != "" || p.Max != "") && !numeric:
		return fmt.Errorf("min or max of %s: only integers and durations have them", p.Type)
	case p.Length != 0 && (p.Type != TypeText && p.Type != TypeBytes || p.Length > MaxConfigValue):
		return fmt.Errorf("length %d of %s: texts and bytes have one, of at most %d", p.Length, p.Type, MaxConfigValue)
	case (p.Type == TypeEnumeration) != (len(p.Values) > 0) || len(p.Values) > maxValues:
		return fmt.Errorf("%d values of %s: an enumeration has 1 to %d, and nothing else has any", len(p.Values), p.Type, maxValues)
	case p.Secret && p.Default != nil:
		return errors.New("a secret with a default: everybody knows it")
	case p.Basic && len(p.SetBy) > 0:
		return errors.New("basic, and set by roles: the factory lays it down, and nobody sets it")
	}
	return errors.Join(p.checkBounds(numeric), p.checkLists(), p.checkDefault())
}

func (p Parameter) checkBounds(numeric bool) error {
	if !numeric {
		return nil
	}
	least, okMin := p.number(p.Min)
	most, okMax := p.number(p.Max)
	switch {
	case p.Min != "" && !okMin:
		return fmt.Errorf("min %q is no %s in its one form", p.Min, p.Type)
	case p.Max != "" && !okMax:
		return fmt.Errorf("max %q is no %s in its one form", p.Max, p.Type)
	case okMin && okMax && least > most:
		return fmt.Errorf("min %s is above max %s", p.Min, p.Max)
	}
	return nil
}

func (p Parameter) checkLists() error {
	for i, v := range p.Values {
		if v == "" || len(v) > MaxConfigName || !utf8.ValidString(v) || slices.Contains(p.Values[:i], v) {
			return fmt.Errorf("value %q: want 1 to %d bytes, each value once", v, MaxConfigName)
		}
	}
	if len(p.SetBy) > maxRoles {
		return fmt.Errorf("%d roles, at most %d", len(p.SetBy), maxRoles)
	}
	for i, r := range p.SetBy {
		if !configName(r) || i > 0 && p.SetBy[i-1] >= r {
			return fmt.Errorf("set by %q: want names of roles in rising order, each once", r)
		}
	}
	return nil
}

func (p Parameter) checkDefault() error {
	if p.Default == nil {
		return nil
	}
	if err := p.Fit(*p.Default); err != nil {
		return fmt.Errorf("its default: %w", err)
	}
	return nil
}
