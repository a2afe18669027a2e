"""What a monitor reads."""

from rcod.doors.meters import Meters


def test_counts_and_times_in_prometheus_format():
    meters = Meters()
    meters.count("/v1/upscale", 200, 0.2)
    meters.count("/v1/upscale", 200, 99.0)
    meters.count("/v1/upscale", 503, 0.001)
    meters.gauge("rcod_seats_taken", "Photos that wait.", lambda: 3)
    lines = meters.text().splitlines()
    assert 'rcod_requests_total{route="/v1/upscale",status="200"} 2' in lines
    assert 'rcod_requests_total{route="/v1/upscale",status="503"} 1' in lines
    assert 'rcod_request_seconds_bucket{route="/v1/upscale",le="0.1"} 0' in lines
    assert 'rcod_request_seconds_bucket{route="/v1/upscale",le="0.25"} 1' in lines
    assert 'rcod_request_seconds_bucket{route="/v1/upscale",le="+Inf"} 2' in lines
    assert 'rcod_request_seconds_sum{route="/v1/upscale"} 99.200000' in lines
    assert 'rcod_request_seconds_count{route="/v1/upscale"} 2' in lines
    assert "rcod_seats_taken 3" in lines
    assert all(line.startswith("#") or len(line.split()) == 2 for line in lines)
