package main

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/hallmark-iot/hallmark/internal/httpapi"
)

// description is the API's, as a server gives it at /openapi.json.
func description() ([]byte, error) {
	data, err := httpapi.Description().MarshalJSON()
	if err != nil {
		return nil, err
	}
	return indented(data)
}

// descriptionForGo is the description as the Go generator does best with it: OpenAPI 3.0, which is what it knows; without answers of
// failure, which the client makes errors before generated code sees them; and with bytes as bytes.
func descriptionForGo() ([]byte, error) {
	data, err := httpapi.Description().Downgrade()
	if err != nil {
		return nil, err
	}
	var doc map[string]any
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	if err := d.Decode(&doc); err != nil {
		return nil, err
	}
	paths, _ := doc["paths"].(map[string]any)
	if len(paths) == 0 {
		return nil, fmt.Errorf("the description has no paths: %.80s", data)
	}
	for _, item := range paths {
		for _, o := range item.(map[string]any) {
			o, _ := o.(map[string]any)
			responses, _ := o["responses"].(map[string]any)
			for status := range responses {
				if status[0] != '2' {
					delete(responses, status)
				}
			}
		}
	}
	bytesAsBytes(doc)
	if data, err = json.Marshal(doc); err != nil {
		return nil, err
	}
	return indented(data)
}

// bytesAsBytes names the format of base64 as OpenAPI 3.0 does. A slice of bytes can be nil by itself.
func bytesAsBytes(v any) {
	switch v := v.(type) {
	case map[string]any:
		if v["format"] == "base64" {
			v["format"] = "byte"
			delete(v, "nullable")
		}
		for _, below := range v {
			bytesAsBytes(below)
		}
	case []any:
		for _, below := range v {
			bytesAsBytes(below)
		}
	}
}

func indented(data []byte) ([]byte, error) {
	var out bytes.Buffer
	if err := json.Indent(&out, data, "", " "); err != nil {
		return nil, err
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}
