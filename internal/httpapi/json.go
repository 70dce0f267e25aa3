package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

// formats are huma's, with JSON that has one reading: of two members of one name, the check against the schema and the decoding would each
// take its own, and a second person who looks at the document might take the other. Names that differ in case are one name to the decoder.
func formats() map[string]huma.Format {
	strict := huma.Format{Marshal: huma.DefaultJSONFormat.Marshal, Unmarshal: func(data []byte, v any) error {
		if _, checks := v.(*any); checks { // once: what the schema is checked against is read first
			if err := oneReading(data); err != nil {
				return err
			}
		}
		return huma.DefaultJSONFormat.Unmarshal(data, v)
	}}
	return map[string]huma.Format{"application/json": strict, "json": strict}
}

// maxNesting bounds how deep a document goes; no operation's goes deeper than ten.
const maxNesting = 64

// oneReading refuses a document that is nested too deeply, or in which an object has two members of one name. What is no JSON is for the decoder to refuse.
func oneReading(data []byte) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	var open []map[string]bool // the names of each object that is open; nil for an array
	name := false              // whether a name comes next
	for {
		t, err := dec.Token()
		if errors.Is(err, io.EOF) || err != nil {
			return nil //nolint:nilerr // the decoder says it better
		}
		top := len(open) - 1
		switch v := t.(type) {
		case json.Delim:
			switch v {
			case '{':
				open = append(open, map[string]bool{})
			case '[':
				open = append(open, nil)
			default:
				open = open[:top]
			}
			if len(open) > maxNesting {
				return fmt.Errorf("it is nested deeper than %d", maxNesting)
			}
			name = len(open) > 0 && open[len(open)-1] != nil
			continue
		case string:
			if name {
				folded := strings.ToLower(v)
				if open[top][folded] {
					return fmt.Errorf("the member %.64q is there twice", v)
				}
				open[top][folded] = true
				name = false
				continue
			}
		}
		name = top >= 0 && open[top] != nil
	}
}
