package s3_test

import (
	"strings"
	"testing"

	"github.com/hallmark-iot/hallmark/internal/blob/blobtest"
	"github.com/hallmark-iot/hallmark/internal/blob/s3"
	"github.com/hallmark-iot/hallmark/internal/blob/s3/s3test"
)

func TestABucketKeepsArtifacts(t *testing.T) {
	bucket, query := s3test.Start(t)
	n := 0
	blobtest.Run(t, func(t *testing.T) blobtest.Fixture {
		t.Helper()
		n++
		at := bucket + "/" + strings.Repeat("b/", n) + "blobs" + query
		view := func() s3.Artifacts {
			b, err := s3.Open(at)
			if err != nil {
				t.Fatal(err)
			}
			return s3.NewArtifacts(b)
		}
		a := view()
		return blobtest.Fixture{Place: a, Again: view(), Left: func(t *testing.T) []string {
			t.Helper()
			left, err := a.Left(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return left
		}}
	})
}
