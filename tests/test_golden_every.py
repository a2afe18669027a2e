"""Every golden array is compared, or stands here with the reason why it is not."""

from fnmatch import fnmatch
from pathlib import Path

import pytest
from conftest import SHARED, golden

HERE = Path(__file__).parent
GOLDEN = SHARED / "golden"
GIVEN = "given to the original and to us"
TABLE = (  # file, arrays, and the test that compares them or the reason; the first that fits
    ("*", "lr_uint8", GIVEN),
    ("color/*", "content_uint8_* style_uint8_*", GIVEN),
    ("color/*", "adain_float_* adain_uint8_* wavelet_*", "test_equals_the_original_programs"),
    ("color/*", "style_* adain_flat_*",
     "test_flat_pictures_and_statistics_equal_the_original_programs"),
    ("degradation/kernels", "kind size sigma_x sigma_y theta beta isotropic sinc_*", GIVEN),
    ("degradation/kernels", "k[0-9]*", "test_bells_equal_the_original"),
    ("degradation/kernels", "sinc[0-9]*", "test_sinc_equals_the_original"),
    ("degradation/random_mixed_kernels", "kernel_list kernel_prob seeds sizes", GIVEN),
    ("degradation/random_mixed_kernels", "kinds mixed_seed*",
     "test_drawn_kernels_equal_the_original_when_drawn_as_it_draws"),
    ("degradation/noise", "x gauss_sigma gauss_gray poisson_scale torch_seed_*", GIVEN),
    ("degradation/noise", "gauss_noise* torch_randn_first",
     "test_gaussian_noise_equals_the_original"),
    ("degradation/noise", "random_gauss_*",
     "test_gaussian_noise_of_drawn_strength_equals_the_original"),
    ("degradation/noise", "poisson_noise*", "test_poisson_noise_equals_the_original"),
    ("degradation/noise", "poisson_levels*",
     "a step inside of `poisson_noise`, whose noise is compared"),
    ("degradation/ops", "x x_80x96 kernels jpeg_quality quality_to_factor_q", GIVEN),
    ("degradation/ops", "filter2D_*", "test_blur_equals_the_original"),
    ("degradation/ops", "jpeg jpeg_q*", "test_jpeg_equals_the_original"),
    ("degradation/ops", "quality_to_factor",
     "test_jpegs_steps_follow_the_quality_as_the_originals"),
    ("degradation/ops", "resize_*", "test_resize_equals_the_original"),
    ("degradation/ops", "jpeg_differentiable_round",
     "no gradient flows through damage here, so `jpeg` rounds and nothing else"),
    ("degradation/ops", "usm_sharp*",
     "no published recipe sharpens its truth: the stages of pipeline_* have none"),
    ("degradation/pipeline_*", "kernel* scale* gray* quality* sigma* noise* seed stages hr_uint8",
     GIVEN),
    ("degradation/pipeline_*", "hr_augmented out* lq",
     "test_every_stage_of_a_run_equals_the_original"),
    ("ldg/*", "cos x1 x2", GIVEN),
    ("ldg/*", "timestep_n* cosine", "test_groups_agree_with_the_released_program"),
    ("losses/rcod_o_time_step_group", "model_gen_timesteps torch_seed", GIVEN),
    ("losses/rcod_o_time_step_group", "timesteps cfg observed_*",
     "test_distill_range_holds_what_the_released_program_drew"),
    ("losses/*", "latents prompt_embeds neg_embeds noise", GIVEN),
    ("losses/osediff_diff_*", "timesteps", GIVEN),
    ("losses/osediff_diff_*", "noisy eps_pred loss lora_* grad::*",
     "test_critic_has_the_original_loss_and_gradients"),
    ("losses/*", "noisy eps_* x0_* loss grad_latents cfg timesteps model_gen_timesteps",
     "test_distillation_has_the_original_gradient"),
    ("osediff/*", "ram_input_sample", "what a tagger sees; here --tags gives its tags"),
    ("osediff/*", "*", "test_every_number_of_the_original_comes_out"),
    ("pisa_sr/*", "decoder_in_p* eps_full eps_pix",
     "test_every_scale_of_the_two_adapters_comes_out"),
    ("pisa_sr/*", "final_uint8_p*", "test_the_command_line_gives_the_original_picture"),
    ("rcod_s/*x*", "final_uint8_adaptive*", "test_the_command_line_gives_the_original_picture"),
    ("rcod_o/train_forward", "c_t_uint8 gt_uint8", GIVEN),
    ("rcod_o/train_forward", "z_* cos timesteps_* eps_* cond image_*",
     "test_training_forward_of_rcod_o_groups_and_restores"),
    ("rcod_s/train_forward", "c_t gt deg_score", GIVEN),
    ("rcod_s/train_forward", "z_L eps decoder_in image0*",
     "test_training_forward_of_rcod_s_and_s3diff_keep_each_samples_scores"),
    ("rcod_s/train_forward", "z_HR cos timesteps timesteps_without_gt eps_without_gt",
     "test_training_of_rcod_s_measures_the_metric_and_falls_back_to_999"),
    ("rcod_s/mem_head", "names deg_feat*", GIVEN),
    ("rcod_s/mem_head", "mem_out* timesteps_*",
     "test_groups_and_metric_heads_decide_as_the_original"),
    ("rcod_s/mem_head", "nan_timestep",
     "a fault: no metric is no group, and is refused (test_errors_say_what_to_do)"),
    ("s3diff/de_net_batch", "x", GIVEN),
    ("s3diff/de_net_batch", "scores features",
     "test_groups_and_metric_heads_decide_as_the_original"),
    ("s3diff/train_class_batch2", "c_t deg_score cond", GIVEN),
    ("s3diff/train_class_batch2", "z_* eps image*",
     "test_training_forward_of_rcod_s_and_s3diff_keep_each_samples_scores"),
    ("[pr]*_*/*x*", "*", "test_every_number_of_the_original_comes_out"),
    ("s3diff/*x*", "*", "test_every_number_of_the_original_comes_out"),
    ("tiling/*_vae_*", "cond_uint8 decoder_in_tiled_run encoder_tile decoder_tile", GIVEN),
    ("tiling/*_vae_*", "z_L_* image_raw_*", "test_the_originals_autoencoder_in_tiles_comes_out"),
    ("tiling/*_latent_*", "tile_size tile_offsets_yx", GIVEN),
    ("tiling/*_latent_*", "tile_overlap", "of the original's own plan of tiles; ours is even"),
    ("tiling/*_latent_*",
     "cond_uint8 prompt token_ids deg_score cond z_* *eps* weights decoder_in final_* timestep",
     "test_tiles_of_the_latent_are_predicted_as_the_original_does"),
)  # fmt: skip


def home(file: str, array: str) -> str | None:
    """The test that compares an array, or the reason why none does."""
    return next((where for files, arrays, where in TABLE if fnmatch(file, files)
                 and any(fnmatch(array, one) for one in arrays.split())), None)  # fmt: skip


def test_every_golden_array_is_compared_or_has_a_reason():
    if not GOLDEN.is_dir():
        pytest.skip("not checked here: shared/golden isn't there")
    files = [path.relative_to(GOLDEN).with_suffix("") for path in GOLDEN.rglob("*.npz")]
    arrays = [(str(file), array) for file in sorted(files) for array in golden(f"{file}.npz")]
    assert len(arrays) > 800
    assert [one for one in arrays if home(*one) is None] == []


def test_every_test_that_the_table_names_is_there():
    tests = "".join(path.read_text(encoding="utf-8") for path in HERE.glob("test_*.py"))
    named = {where for _, _, where in TABLE if where.startswith("test_")}
    assert [name for name in named if f"def {name}(" not in tests] == []
