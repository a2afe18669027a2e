"""Laws of the tiny backbone."""

import torch

from rcod.networks.backbone import LastTouch, TinyBackbone, TinySettings, fit_basis, lap, lapping

SMALL = TinySettings(
    latent=12, lap=-15, waves=4, widths=(8, 16), blocks=(1, 2, 1), tokens=8, heads=2
)


def backbone(settings: TinySettings = SMALL) -> TinyBackbone:
    torch.manual_seed(0)
    net = TinyBackbone(settings)
    rng = torch.Generator().manual_seed(0)
    crops = torch.rand(4, 3, 32, 32, generator=rng)
    basis, mean, std = fit_basis(crops, settings.latent, net.turn)
    net.basis.copy_(basis)
    net.mean.copy_(mean)
    net.std.copy_(std)
    for parameter in net.unet.parameters():  # nothing may start as zero here
        torch.nn.init.normal_(parameter, std=0.1)
    return net.requires_grad_(False)


def test_all_components_lose_nothing():
    net = backbone(SMALL.model_copy(update={"latent": 48}))
    image = torch.rand(1, 3, 20, 12, generator=torch.Generator().manual_seed(1))
    z = net.encode(image)
    assert z.shape == (1, 48, 5, 3)
    torch.testing.assert_close(net.decode(z), image, rtol=1e-4, atol=1e-4)


def test_fewer_components_are_the_best_linear_ones():
    crops = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    net = TinyBackbone(SMALL)
    basis, mean, std = fit_basis(crops, 12, net.turn)
    flat = basis.flatten(1)
    torch.testing.assert_close(flat @ flat.T, torch.eye(12), rtol=1e-4, atol=1e-4)
    assert bool((std.diff() <= 0).all())
    torch.testing.assert_close(mean, crops.mean(dim=(0, 2, 3)))
    net.basis.copy_(basis)
    net.mean.copy_(mean)
    net.std.copy_(std)
    spread = net.encode(crops).std(dim=(0, 2, 3))
    torch.testing.assert_close(spread, torch.ones(12), rtol=0.05, atol=0)


def test_encoding_a_part_is_a_part_of_the_encoding():
    net = backbone()
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    whole = net.encode(image)
    part = net.encode(image[..., 16:48, 8:40])
    torch.testing.assert_close(part[..., 1:-1, 1:-1], whole[..., 5:11, 3:9])  # blocks lap by one


def test_lapping_is_undone_by_its_transpose_and_reaches_two_pixels_over_borders():
    turn = lapping(-15)
    image = torch.rand(1, 3, 8, 12, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(lap(lap(image, turn), turn.T), image)
    torch.testing.assert_close(turn @ turn.T, torch.eye(4))
    torch.testing.assert_close(lapping(0), torch.eye(4))
    flat = torch.full((1, 3, 8, 8), 0.5)
    torch.testing.assert_close(lap(flat, turn), flat)  # an even area stays even
    one = torch.zeros(1, 3, 12, 12)
    one[..., 4:8, 4:8] = 1  # an error of one block
    seen = lap(one, turn.T)[0, 0] != 0
    assert seen[2:10, 2:10].sum() == seen.sum() == 64


def test_a_far_pixel_does_not_matter():
    """No image-wide statistics: only what lies within the receptive field counts."""
    net = backbone()
    z = torch.randn(1, 12, 64, 64, generator=torch.Generator().manual_seed(1))
    tokens = torch.randn(1, 5, 8, generator=torch.Generator().manual_seed(2))
    t = torch.tensor([499])
    eps = net.predict(z, t, tokens)
    other = z.clone()
    other[..., 40:, :] += 1
    moved = (net.predict(other, t, tokens) - eps).abs().amax(dim=(0, 1, 3))  # (64,)
    assert moved[:8].max() == 0
    assert moved[39] > 0


def test_odd_sizes_and_single_pixels_work():
    net = backbone()
    tokens = torch.zeros(1, 5, 8)
    for h, w in ((1, 1), (3, 5), (2, 7)):
        z = torch.randn(1, 12, h, w, generator=torch.Generator().manual_seed(1))
        assert net.predict(z, torch.tensor([249]), tokens).shape == z.shape


def test_a_fresh_unet_finds_no_noise():
    torch.manual_seed(0)
    net = TinyBackbone(SMALL)
    eps = net.predict(torch.randn(1, 12, 4, 4), torch.tensor([1]), torch.zeros(1, 5, 8))
    assert eps.abs().max() == 0


def test_a_fresh_touch_changes_nothing_and_a_trained_one_reaches_seven_pixels():
    torch.manual_seed(0)
    touch = LastTouch(8)
    image = torch.rand(1, 3, 32, 32)
    assert torch.equal(touch(image), image)
    torch.nn.init.normal_(touch.last.weight)
    other = image.clone()
    other[..., 16, 16] = 0
    changed = (touch(other) - touch(image)).abs().amax(dim=(0, 1)) > 1e-6
    assert changed[16, 17]
    rows, columns = torch.nonzero(changed, as_tuple=True)
    assert max(int((rows - 16).abs().max()), int((columns - 16).abs().max())) <= 7
